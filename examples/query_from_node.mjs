// Search a collection from Node, without Python: docs/how-to/query-from-other-languages.md has the formula.
//
//     node examples/query_from_node.mjs MODEL EMBEDDING.json                                          # prints the request
//     node examples/query_from_node.mjs MODEL EMBEDDING.json http://localhost:6333/collections/items  # prints the hits

import { readFileSync } from "node:fs";
import { join } from "node:path";

// A safetensors file: the length of the header (8 bytes), the header (JSON), and the tensors, row by row.
function readTensors(file) {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start));
  return (name) => {
    const [first, last] = header[name].data_offsets;
    const values = new Float32Array((last - first) / 4);
    for (let i = 0; i < values.length; i++) values[i] = bytes.readFloatLE(start + first + 4 * i);
    return values;
  };
}

// W x / |x|, a value for every latent.
function queryVector(atoms, latents, embedding) {
  const norm = Math.hypot(...embedding);
  const vector = new Float32Array(latents);
  for (let j = 0; j < latents; j++)
    vector[j] = embedding.reduce((sum, x, i) => sum + atoms[j * embedding.length + i] * x, 0) / norm;
  return vector;
}

const [folder, embeddingFile, collection] = process.argv.slice(2);
const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
const tensor = readTensors(join(folder, config.weights));
const embedding = JSON.parse(readFileSync(embeddingFile, "utf8"));
if (embedding.length !== config.dim) throw new Error(`${embedding.length} dimensions, but the model has ${config.dim}`);
const [vector, magnitude] = [queryVector(tensor("atoms"), config.latents, embedding), tensor("latent_magnitude")];
const gain = (j) => Math.abs(vector[j]) * magnitude[j];
const all = [...vector.keys()];
const sparse = (latents) => ({ indices: latents, values: latents.map((j) => vector[j]) });
const first = all.toSorted((a, b) => gain(b) - gain(a)).slice(0, 1280);
const request = {
  prefetch: { query: sparse(first), using: "code", limit: 100 },
  query: { recommend: { positive: [sparse(all)], strategy: "sum_scores" } },
  using: "code", limit: 10, with_payload: true,
};
if (collection === undefined) console.log(JSON.stringify(request));
else {
  const key = process.env.QDRANT_API_KEY;
  const headers = { "content-type": "application/json", ...(key && { "api-key": key }) };
  const answer = await fetch(`${collection}/points/query`, { method: "POST", headers, body: JSON.stringify(request) });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  for (const { id, score, payload } of (await answer.json()).result.points)
    console.log(score.toFixed(3), payload.__compressae_id ?? id);
}
