import { raw } from "./html";

/** Two palettes, light and dark; series 1 to 5 stay apart for people who see colours differently. */
export const palette = raw(`
:root { color-scheme: light dark; --page:#f7f7f5; --card:#fff; --ink:#17181a; --soft:#5d6066; --rule:#e2e2de; --wash:#f1f1ee;
  --s1:#2a78d6; --s2:#d9591f; --s3:#14905f; --s4:#7a4fc4; --s5:#7d8087; --good:#14743f; --bad:#b3261e; }
@media (prefers-color-scheme: dark) { :root { --page:#131416; --card:#1c1d20; --ink:#eceded; --soft:#a0a4ab; --rule:#313338; --wash:#26282c;
  --s1:#5b9df0; --s2:#f08a4b; --s3:#3fbf8a; --s4:#a98bea; --s5:#94989f; --good:#5fce92; --bad:#ff8a80; } }
`);

/** Of all pages. */
export const style = raw(`${palette}
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width:1240px; margin:0 auto; padding:32px 24px 64px; }
h1 { font-size:26px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em; }
h1, .lead, .notes li, .facts td { overflow-wrap:anywhere; }
h2 { font-size:17px; margin:36px 0 12px; }
h3 { font-size:15px; margin:0 0 8px; }
p { margin:0 0 12px; max-width:75ch; }
.lead { color:var(--soft); }
.card, .chart, .table { background:var(--card); border:1px solid var(--rule); border-radius:8px; }
.card { padding:16px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill, minmax(150px, 1fr)); gap:12px; margin-top:20px; }
.tiles div { background:var(--card); border:1px solid var(--rule); border-radius:8px; padding:12px 14px; }
.tiles b { display:block; font-size:22px; line-height:1.25; font-weight:600; overflow-wrap:anywhere; }
.tiles span { color:var(--soft); font-size:13px; }
.charts { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap:16px; }
.chart { margin:0; padding:14px 14px 8px; }
figcaption { font-weight:600; font-size:14px; display:flex; flex-wrap:wrap; justify-content:space-between; gap:4px 16px; margin-bottom:6px; }
.legend { display:flex; flex-wrap:wrap; gap:2px 14px; list-style:none; margin:0; padding:0; font-weight:400; font-size:13px; color:var(--soft); }
.legend li { display:flex; align-items:center; }
.key { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:6px; flex:none; }
.legend svg { margin-right:6px; width:26px; flex:none; } .plot { position:relative; } .wide { overflow-x:auto; } .wide svg { min-width:640px; }
svg { display:block; width:100%; height:auto; overflow:visible; }
.grid { stroke:var(--rule); } .tick { fill:var(--soft); font-size:11px; font-variant-numeric:tabular-nums; }
.label { fill:var(--ink); font-size:12px; } .level { stroke:var(--soft); stroke-dasharray:4 4; } .cursor { stroke:var(--soft); }
.line { fill:none; stroke-width:1.8; stroke-linejoin:round; stroke-linecap:round; } .whisker { stroke:var(--ink); stroke-width:1.2; opacity:.75; }
${[1, 2, 3, 4, 5].map((n) => `.s${n} { stroke:var(--s${n}); } .b${n}, .dot.s${n} { background:var(--s${n}); fill:var(--s${n}); } .outline${n} { fill:none; stroke:var(--s${n}); }`).join("\n")}
.tip { position:absolute; top:4px; background:var(--card); border:1px solid var(--rule); border-radius:6px; box-shadow:0 2px 10px #0003; padding:6px 10px; font-size:12px; pointer-events:none; white-space:nowrap; font-variant-numeric:tabular-nums; }
.table { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-size:14px; }
th, td { text-align:left; padding:7px 14px; border-bottom:1px solid var(--rule); vertical-align:top; }
tr:last-child > td, tr:last-child > th { border-bottom:0; }
thead th { color:var(--soft); font-weight:500; font-size:13px; white-space:nowrap; }
tbody th { font-weight:500; min-width:150px; }
.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; }
td code, pre { font:13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap:anywhere; }
pre { white-space:pre-wrap; margin:0; background:var(--wash); border-radius:6px; padding:10px 12px; }
.columns { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap:16px; align-items:start; } .columns > * { min-width:0; }
.answers { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(260px, 100%), 1fr)); gap:12px; margin:10px 0 18px; }
.answers > div { min-width:0; } .answers h4 { display:flex; align-items:center; margin:0 0 6px; font-size:13px; }
.answers h4 b { margin-left:auto; font-size:14px; font-variant-numeric:tabular-nums; } .answers small { display:block; color:var(--soft); margin-top:6px; font-size:13px; }
.sample { margin-bottom:16px; } .sample > :last-child { margin-bottom:0; }
.said { color:var(--soft); font-size:13px; margin:10px 0 4px; }
.notes { list-style:none; margin:12px 0 0; padding:0; } .notes li { padding:8px 0 8px 28px; position:relative; border-bottom:1px solid var(--rule); }
.notes li:last-child { border-bottom:0; } .notes li::before { position:absolute; left:4px; font-weight:700; }
.holds::before { content:"\\2713"; color:var(--good); } .fails::before { content:"\\2717"; color:var(--bad); } .warns::before { content:"!"; color:var(--bad); }
footer { margin-top:40px; color:var(--soft); font-size:13px; }
@media (max-width: 600px) { .facts th { min-width:104px; } .compact .label { font-size:19px; } .compact .tick { font-size:17px; } .plot .label, .plot .tick { font-size:15px; } }
@media print { body { background:#fff; } .charts { break-inside:avoid; } }
`);
