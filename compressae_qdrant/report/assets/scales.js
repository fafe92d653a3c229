// Scales from values to pixels, with ticks at round numbers.
function linearScale([low, high], [start, end]) {
  const at = (value) => start + ((value - low) / (high - low)) * (end - start);
  const ticks = (count) => {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
    return found;
  };
  return { at, ticks };
}

function logScale([low, high], [start, end], base = 10) {
  const log = (value) => Math.log(value) / Math.log(base);
  const at = (value) => start + ((log(value) - log(low)) / (log(high) - log(low))) * (end - start);
  const ticks = (count) => {
    const from = Math.ceil(log(low) - 1e-9), to = Math.floor(log(high) + 1e-9);
    const powers = Array.from({ length: Math.max(to - from + 1, 0) }, (_, i) => base ** (from + i));
    for (const factors of base === 10 ? [[1, 2, 5], [1, 1.5, 2, 3, 5, 7]] : []) {
      if (powers.length >= 3) break;
      const fine = [];
      for (let p = from - 1; p <= to; p++) fine.push(...factors.map((factor) => factor * 10 ** p));
      const inside = fine.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
      if (inside.length >= 3) return inside.map((tick) => Number(tick.toPrecision(6)));
    }
    const every = Math.ceil(powers.length / count);
    return powers.filter((_, i) => i % every === 0).map((tick) => Number(tick.toPrecision(6)));
  };
  return { at, ticks };
}

/** For shares near 1: each step up halves the distance to 1. The offset gives 1 itself a place on the scale. */
function missedScale([low, high], [start, end]) {
  const position = (share) => -Math.log(1.003 - share);
  const from = position(low) - 0.12, to = position(high) + 0.12;
  const at = (share) => start + ((position(share) - from) / (to - from)) * (end - start);
  const ticks = () => [0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1].filter((share) => position(share) >= from && position(share) <= to);
  return { at, ticks };
}
