"""Ingestion: a catalog is read as batches, encoded, and written to an index.

`ingest` loads a catalog, `sync` makes an index equal to one, `migrate` adds codes to a collection of dense vectors;
`aio` and `ray` run the same work on an event loop and on a Ray cluster.
"""
