"""Ingestion: read a catalog in batches, encode them and write the codes to an index.

`ingest` loads a catalog, `sync` makes an index equal to one, and `migrate` adds codes to a collection of dense vectors;
`aio` and `ray` run the same work on an event loop and on a Ray cluster.
"""
