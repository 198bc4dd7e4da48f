/** The style of the chat page, over the palette of all pages. */
export const chatStyle = `
:root { --edge:#85888f; } @media (prefers-color-scheme: dark) { :root { --edge:#71757d; } }
* { box-sizing:border-box; } [hidden] { display:none !important; }
html, body { height:100%; }
body { margin:0; display:flex; flex-direction:column; background:var(--page); color:var(--ink); font:15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.hidden { position:absolute; width:1px; height:1px; margin:0; overflow:hidden; clip-path:inset(50%); white-space:nowrap; }
header { display:flex; flex-wrap:wrap; align-items:center; gap:8px 16px; padding:10px 20px; background:var(--card); border-bottom:1px solid var(--rule); }
h1 { font-size:16px; line-height:1.2; margin:0; letter-spacing:-.01em; }
.choice { display:flex; flex-wrap:wrap; align-items:center; gap:6px 8px; min-width:0; color:var(--soft); font-size:13px; }
.choice select { max-width:min(260px, 42vw); text-overflow:ellipsis; }
.tools { display:flex; gap:6px; margin-left:auto; }
input, select, textarea, button { font:inherit; color:var(--ink); background:var(--page); border:1px solid var(--edge); border-radius:8px; padding:5px 10px; min-width:0; }
button { cursor:pointer; } button:hover { background:var(--wash); } button:disabled { opacity:.55; cursor:default; }
button[aria-pressed=true], button[aria-expanded=true] { background:var(--ink); border-color:var(--ink); color:var(--card); }
::placeholder { color:var(--soft); opacity:1; }
:focus-visible { outline:2px solid var(--s1); outline-offset:1px; } #talk:focus { outline:none; }
#settings { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:10px 14px; padding:14px 20px; background:var(--card); border-bottom:1px solid var(--rule); }
#settings label { display:flex; flex-direction:column; gap:3px; font-size:13px; color:var(--soft); }
#settings input, #settings textarea { font-size:15px; } #settings textarea { resize:vertical; max-height:30vh; } .whole, .keys { grid-column:1 / -1; }
.keys { margin:0; font-size:13px; color:var(--soft); }
kbd { font:12px ui-monospace, "SF Mono", Menlo, Consolas, monospace; border:1px solid var(--edge); border-bottom-width:2px; border-radius:4px; padding:0 5px; color:var(--ink); background:var(--page); }
#talk { flex:1; min-height:0; overflow-y:auto; overscroll-behavior:contain; padding:20px; }
#turns, #empty { max-width:860px; margin:0 auto; } body.two #turns { max-width:1360px; }
#empty { color:var(--soft); text-align:center; padding-top:14vh; }
.turn { margin-bottom:26px; }
.question { width:fit-content; max-width:min(85%, 680px); margin:0 0 12px auto; padding:8px 14px; border-radius:14px 14px 3px 14px; background:var(--wash); border:1px solid var(--rule); max-height:46vh; overflow-y:auto; }
.words { white-space:pre-wrap; overflow-wrap:anywhere; }
.answers { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap:14px; align-items:start; }
.answer { min-width:0; background:var(--card); border:1px solid var(--rule); border-left:4px solid var(--s1); border-radius:10px; padding:8px 14px 12px; }
.answer + .answer { border-left-color:var(--s2); }
.by { display:flex; align-items:baseline; gap:8px; margin:0 0 4px; font-size:13px; font-weight:400; color:var(--soft); }
.by b { font-weight:600; color:var(--ink); overflow-wrap:anywhere; } .facts { margin-left:auto; white-space:nowrap; font-variant-numeric:tabular-nums; }
.acts { display:flex; gap:6px; margin-top:8px; } .acts button { font-size:13px; padding:1px 9px; background:none; color:var(--soft); border-color:var(--rule); } .acts button:hover { background:var(--wash); color:var(--ink); }
.busy .words::after { content:""; display:inline-block; width:.5em; height:1.05em; margin-left:2px; vertical-align:-.15em; background:var(--s1); border-radius:2px; animation:blink 1.1s steps(2) infinite; }
@keyframes blink { 50% { opacity:.15; } } @media (prefers-reduced-motion: reduce) { .busy .words::after { animation:none; } }
.problem { margin:6px 0 0; padding:6px 12px; border:1px solid var(--bad); border-radius:8px; color:var(--bad); overflow-wrap:anywhere; }
footer { padding:10px 20px 14px; background:var(--card); border-top:1px solid var(--rule); }
#ask { display:flex; gap:8px; align-items:flex-end; max-width:860px; margin:0 auto; }
#question { flex:1; resize:none; field-sizing:content; min-height:38px; max-height:34vh; padding:7px 12px; border-radius:12px; }
#send, #stop { min-height:38px; padding:5px 18px; border-radius:12px; font-weight:600; }
#send { background:var(--s1-strong); border-color:var(--s1-strong); color:#fff; } #stop { border-color:var(--bad); color:var(--bad); background:var(--page); }
:root { --s1-strong:#1f62b5; } @media (prefers-color-scheme: dark) { :root { --s1-strong:#2c6dbf; } }
@media (max-width: 560px) {
  header { padding:8px 12px; gap:8px; } .choice { order:3; width:100%; } .choice select { flex:1; max-width:none; } #versus { display:flex; flex:1; gap:8px; align-items:center; min-width:0; }
  .tools { gap:5px; } .tools button { padding:3px 8px; font-size:13px; } #settings { padding:10px 12px 14px; grid-template-columns:repeat(2, minmax(0, 1fr)); max-height:58vh; overflow-y:auto; } .keys { display:none; } #talk { padding:14px 12px; } footer { padding:8px 12px 10px; } #send, #stop { padding:5px 13px; }
}
`;
