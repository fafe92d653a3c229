// `compressae plan` in the browser: the formulas and names of capacity/planner.py and sizes.py, with the same constants.
// A test compares the two. Arguments are as in Python; prices may be null.
function makePlan(constants, workload, node, prices) {
  const { bytes, times, engine, disk: reads, graph_bytes: links, graph_times: steps } = constants;
  const { items, dim, k, latents, datatype } = workload;
  const free = 1 - node.headroom;

  const loosePostings = (length, sharpness) => {
    const half = engine.block / 2;
    return (half * length) / Math.pow(Math.pow(length, sharpness) + Math.pow(half, sharpness), 1 / sharpness);
  };
  const indexBytes = (segments) => {
    const lists = segments * latents, length = (items * k) / lists;
    const loose = loosePostings(length, bytes.loose_sharpness);
    return lists * (bytes.list + loose * bytes.loose + (length - loose) * (bytes.packed[datatype] + Math.log2(latents / k) / 8));
  };
  const payloadBytes = (workload.payload_bytes ? bytes.payload_item + bytes.payload * workload.payload_bytes : 0) + (workload.text_words ? engine.text_item_bytes + engine.text_word_bytes * workload.text_words : 0);
  const codeBytes = bytes.cell * Math.ceil((bytes.code + (bytes.code_nonzero + bytes.code_nonzero_bit * Math.log2(latents)) * k) / bytes.cell);
  const embeddingBytes = (bytes.dense_dimension * dim * engine.stored_bytes[workload.dense_datatype]) / engine.stored_bytes.float16;
  const itemBytes = bytes.disk_item + codeBytes + payloadBytes + (workload.keep_dense ? embeddingBytes : 0);
  const navigationDim = workload.navigation_dim ?? Math.min(engine.navigation_dim, dim);
  const storedVectorBytes = (links.disk_dimension * navigationDim * engine.stored_bytes[workload.navigation_datatype]) / engine.stored_bytes.float16;
  const vectorBytes = links.vector + (navigationDim * workload.navigation_bits) / 8;
  const linkBytes = (inSegment) => links.item + links.link * Math.pow(workload.navigation_m, links.link_exponent) * Math.log2(Math.max(inSegment, 2));
  const distinct = (some, pages) => pages * -Math.expm1(-some / pages);
  const recordPages = (records, size) => records * (1 + size / engine.page);
  const pagesRead = (byCodes, byEmbeddings, compared = 0) => distinct(byCodes, (items * codeBytes) / engine.page) + distinct(byCodes, (items * reads.pointer) / engine.page)
    + distinct(compared, (items * storedVectorBytes) / engine.page) + recordPages(byEmbeddings, embeddingBytes);
  const [first, candidates] = searchPlan(workload, engine.small_items);
  const itemMs = times.item + times.posting * k * Math.pow(first / latents, times.share_exponent) + (times.visit * first) / engine.visit_items;
  const queryMs = times.fixed + times.latent * latents;
  const shardMs = queryMs + (times.candidate + times.candidate_latent * latents) * candidates;
  const searchMs = (shards, segments) => queryMs + (shardMs - queryMs) / segments + (itemMs * items) / (shards * segments);
  const spread = (parts) => Math.pow(Math.pow(2, 1 / parts) - 1, -times.spread);
  const tables = bytes.item * items, room = node.ram_gib * engine.gib * free;

  const planning = times.planning + (times.planning_latent + times.planning_product * dim) * latents;
  const replicasFor = (ms) => Math.max(workload.replicas, Math.ceil((workload.queries_per_second * ms) / (1000 * free * node.vcpus)));
  const wasMeasured = latents === 4096 && !workload.keep_dense;
  const ofLength = (measured) => nearest(Object.entries(measured).map(([key, value]) => [...key.split(","), value]).filter(([size]) => size === String(k)).map(([, of, value]) => [of, value]), dim);

  const estimate = (name, index, disk, replicas, shards, segments, p50, cpu, pages, recall) => {
    const nodes = replicas * shards, resident = index + tables, busy = (workload.queries_per_second * cpu) / 1000;
    const diskUsd = prices && ((replicas * disk) / engine.gib) * prices.disk_gib;
    return {
      name, index_bytes: index, resident_bytes: resident, disk_bytes: disk, replicas, shards, segments, nodes,
      read_bytes: engine.page * pages, cold_ms: p50 + (reads.page_ms * pages) / segments, p50_ms: p50, cpu_ms: cpu, queries_per_core: 1000 / cpu, utilisation: busy / (nodes * node.vcpus), recall100: recall,
      usd: prices && diskUsd + ((replicas * resident) / engine.gib) * prices.ram_gib + busy * prices.vcpu,
      usd_nodes: prices && diskUsd + nodes * (node.ram_gib * prices.ram_gib + node.vcpus * prices.vcpu),
    };
  };

  const codes = () => {
    const perShard = shardMs + times.segment * (node.vcpus - 1);
    const rate = workload.queries_per_second / (1000 * free * node.vcpus);
    const replicas = Math.max(workload.replicas, Math.ceil(2 * rate * perShard));
    const whole = Math.max(1, Math.ceil(items / engine.segment_items));
    const shards = Math.max(Math.ceil((tables + indexBytes(whole)) / room), Math.ceil((rate * itemMs * items) / (replicas - rate * perShard)));
    const segments = Math.max(1, Math.min(node.vcpus, Math.floor(items / (shards * engine.segment_items))));
    const index = indexBytes(shards * segments);
    const byDefault = [null, FIRST_STAGE].includes(workload.first_stage_latents) && workload.prefetch === null;
    const byEmbeddings = workload.keep_dense ? Math.min(3 * workload.limit, candidates) : 0;
    return estimate(`codes k=${k}, h=${latents}, ${datatype}`, index, index + itemBytes * items, replicas, shards, segments,
      planning + searchMs(shards, segments) * spread(shards * segments),
      itemMs * items + shards * (shardMs + times.segment * (segments - 1)), pagesRead(candidates, byEmbeddings),
      wasMeasured && byDefault ? ofLength(constants.codes_recall100) : null);
  };
  const graph = () => {
    const shards = Math.ceil(((vectorBytes + linkBytes(items)) * items + tables) / room), inShard = items / shards;
    const index = vectorBytes + linkBytes(inShard);
    const disk = indexBytes(shards) / items + itemBytes + links.disk_item + storedVectorBytes + index;
    const grain = 2 * navigationDim >= Math.min(2 * engine.fine_dim, dim) ? "fine" : "coarse";
    const defaults = (workload.keep_dense ? engine.graph_originals : engine.graph_codes)[grain];
    const found = workload.prefetch ?? Math.max(defaults.least, Math.ceil(defaults.factor * workload.limit));
    const growth = 1 + engine.nodes_per_doubling * Math.log2(Math.max(items, engine.small_items) / engine.small_items);
    const ef = Math.max(workload.navigation_ef ?? Math.ceil(growth * Math.max(defaults.nodes, Math.ceil(defaults.nodes_factor * found))), found);
    const compared = ef > found ? ef : 0;
    const fetched = !workload.keep_dense && found <= engine.rescored_here;
    const [fixed, each] = workload.keep_dense ? [steps.fixed_embedding, steps.embedding]
      : fetched ? [steps.fixed_fetched, steps.fetched]
        : [steps.fixed, steps.rescoring * (times.candidate + times.candidate_latent * latents)];
    const walk = inShard * 2 * navigationDim < engine.scan_bytes ? steps.scan * inShard : steps.step * ef * Math.log(inShard);
    const one = fixed + walk + steps.comparison * compared + each * found;
    const byDefault = workload.navigation_dim === null && workload.navigation_bits === engine.navigation_bits && workload.navigation_m === engine.navigation_m
      && workload.navigation_datatype === engine.navigation_datatype && workload.prefetch === null && workload.navigation_ef === null;
    return estimate(`codes k=${k}, h=${latents}, graph`, index * items, disk * items, replicasFor(one), shards, 1,
      (workload.keep_dense || fetched ? times.planning : planning) + one * spread(shards), one * shards, workload.keep_dense ? pagesRead(0, found, compared) : pagesRead(found, 0, compared),
      wasMeasured && byDefault ? ofLength(constants.graph_recall100) : null);
  };
  const dense = (costs) => {
    const each = costs.resident_item + costs.resident_dimension * dim;
    const shards = Math.ceil((each * items + tables) / room);
    const one = costs.fixed + (costs.log_item + costs.log_item_dimension * dim) * Math.log(Math.max(items / shards, 2));
    const disk = (costs.disk_item + costs.disk_dimension * dim + payloadBytes) * items;
    return estimate(costs.name, each * items, disk, replicasFor(one), shards, 1, one * spread(shards), one * shards,
      recordPages(costs.originals * workload.limit, 4 * dim), nearest(Object.entries(costs.recall100), dim));
  };
  const both = [...(workload.first_stage === "codes" ? [] : [graph()]), ...(workload.first_stage === "graph" ? [] : [codes()])];
  return [...both, ...constants.dense.map(dense)];
}

/** As in search/defaults.py. */
const FIRST_STAGE = 1280;

/** Latents of the first stage and number of candidates, as in search/defaults.py and Workload.plan. */
function searchPlan({ items, limit, k, latents, keep_dense, first_stage_latents, prefetch }, smallItems) {
  const candidates = Math.max(100, (3 + Math.ceil(Math.max(k - 32, 0) / 16) + Number(keep_dense)) * limit);
  if (first_stage_latents !== null || prefetch !== null) return [Math.min(first_stage_latents ?? FIRST_STAGE, latents), prefetch ?? candidates];
  const first = Math.max(64, Math.round(FIRST_STAGE * Math.sqrt(smallItems / Math.max(items, smallItems))));
  return [Math.min(first, latents), Math.ceil((candidates * FIRST_STAGE) / first)];
}

/** The recall measured at the nearest dimensions. */
function nearest(measured, dim) {
  const found = measured.map(([of, value]) => [Math.abs(Number(of) - dim), value]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return found.length ? found[0][1] : null;
}
