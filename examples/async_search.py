"""Search a server's collection from asyncio, many queries at once.

    python examples/async_search.py

Without arguments it uses the client's in-memory mode, which needs no server and is slow. For a server pass its URL:

    python examples/async_search.py http://localhost:6333

The example creates the collection `compressae-example` and deletes it at the end.
"""

import asyncio
import os
import sys

from qdrant_client import AsyncQdrantClient

from compressae_qdrant import AsyncQdrantIndex, AsyncRetriever, TrainConfig, load_sample, train

SMALL = TrainConfig(latents=256, k=8, steps=10, rounds=2, round_items=512, encoder_steps=2)
ITEMS = 200
COLLECTION = "compressae-example"


async def main() -> None:
    catalog = load_sample()
    model = train(catalog.embeddings[:ITEMS], SMALL)
    location = sys.argv[1] if len(sys.argv) > 1 else ":memory:"
    client = AsyncQdrantClient(location, api_key=os.environ.get("QDRANT_API_KEY"))
    try:
        index = await AsyncQdrantIndex.create(client, COLLECTION, model)
        await index.upsert(catalog.ids[:ITEMS], model.encode(catalog.embeddings[:ITEMS]), catalog.payloads[:ITEMS])
        retriever = AsyncRetriever(model, index, in_flight=4)  # at most four requests wait for the server
        results = await asyncio.gather(*(retriever.search(vector, limit=3) for vector in catalog.embeddings[:5]))
        for id, hits in zip(catalog.ids[:5], results, strict=True):
            print(f"{id}: {', '.join(str(hit.id) for hit in hits)}")
    finally:
        await client.delete_collection(COLLECTION)
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
