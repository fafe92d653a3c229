// Draw each section from the page's data. Sections without data are not on the page.
const data = JSON.parse(document.getElementById("data").textContent);
const host = (name) => document.querySelector(`[data-show="${name}"]`);

if (data.saved) saved(host("saved"), data.saved);
if (data.front) {
  byBytes(host("by-bytes"), data.front);
  if (host("by-time")) byTime(host("by-time"), data.front);
}
if (data.plans) latency(host("latency"), data.plans);
if (data.segments) segments(host("segments"), data.segments);
if (data.planner) calculator(host("calculator"), data.planner);
if (data.queries) sampleQueries(host("queries"), data.queries, data.saved);
if (data.concepts) conceptBrowser(host("concepts"), data.concepts);
if (data.training) training({ losses: host("losses"), masses: host("masses") }, data.training);
if (data.latents) latentUse(host("latents"), data.latents);
document.documentElement.dataset.ready = "yes";
