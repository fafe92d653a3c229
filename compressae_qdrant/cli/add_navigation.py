"""compressae add-navigation: navigation vectors for an index that has none."""

from __future__ import annotations

from .inputs import index_settings
from .options import ConfigOption, IndexOption, JsonOption, ModelOption
from .output import progress_bar, show

__all__ = ["add_navigation"]


def add_navigation(
    index: IndexOption, model: ModelOption, config: ConfigOption = None, json_output: JsonOption = False
) -> None:
    """Give an index that has none navigation vectors with a graph, which keep searches of large catalogs fast.

    They are computed from the stored codes. A collection on a server gets them while it is searched (Qdrant 1.18 or
    newer), and its inverted index moves to disk; stop programs that write to it, and restart them afterwards. An
    embedded index is rebuilt beside itself, which needs its bytes on disk a second time. If the command is interrupted,
    run it again.

    Example:
        compressae add-navigation --index index --model model
    """
    from ..index import IndexSettings
    from ..index import add_navigation as add
    from ..index.settings import NavigationSettings
    from ..model.compressae import CompresSAE

    settings = IndexSettings(**index_settings(config)).navigation or NavigationSettings()
    with progress_bar("add navigation", None, quiet=json_output) as advance:
        added = add(str(index), CompresSAE.load(model), settings, on_items=advance.add)
    show({"items": added}, json_output)
