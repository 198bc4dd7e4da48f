/** The page to chat with the served models, and to set two of them side by side. */
import { html, raw } from "../../report/html";
import { sourceOf } from "../../report/page";
import { palette } from "../../report/style";
import { chatScript } from "./chat-script";
import { chatStyle } from "./chat-style";

/** A page with the policy that it is sent under. */
export interface ChatPage {
  html: string;
  /** Content-Security-Policy: its own script and style by their hashes, and this server to ask. */
  policy: string;
}

/** Builds the page; it asks the server for its models itself. */
export function chatPage(): ChatPage {
  const style = `${palette}${chatStyle}`;
  const policy = [
    "default-src 'none'",
    `script-src ${sourceOf(chatScript)}`,
    `style-src ${sourceOf(style)}`,
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>zephyr-align chat</title>
<style>${raw(style)}</style>
</head>
<body>
<header>
<h1>zephyr-align</h1>
<div class="choice"><label for="left" class="hidden">model</label><select id="left"></select><span id="versus" hidden><span aria-hidden="true">and</span> <label for="right" class="hidden">model beside it</label><select id="right"></select></span></div>
<div class="tools">
<button type="button" id="compare" aria-pressed="false" title="two models side by side (c)">Compare</button>
<button type="button" id="set" aria-expanded="false" aria-controls="settings" title="settings (s)">Settings</button>
<button type="button" id="new" title="new chat (n)">New</button>
</div>
</header>
<form id="settings" hidden aria-label="settings">
<label class="whole">System message<textarea id="system" rows="2" spellcheck="false" placeholder="none"></textarea></label>
<label>Temperature<input id="temperature" type="number" min="0" max="2" step="0.1"></label>
<label>Top p<input id="top_p" type="number" min="0" max="1" step="0.05"></label>
<label>Longest answer<input id="max_tokens" type="number" min="1" step="1" placeholder="tokens"></label>
<label>Seed<input id="seed" type="number" step="1" placeholder="random"></label>
<label>Key<input id="key" type="password" autocomplete="off" placeholder="if the server asks"></label>
<p class="keys"><kbd>Enter</kbd> send · <kbd>Shift</kbd> <kbd>Enter</kbd> new line · <kbd>Esc</kbd> stop · <kbd>/</kbd> write · <kbd>n</kbd> new · <kbd>c</kbd> compare · <kbd>s</kbd> settings</p>
</form>
<main id="talk" role="log" aria-label="conversation" tabindex="-1"><div id="turns"></div><p id="empty">Ask something. What is said stays on this machine.</p></main>
<p id="said" class="hidden" role="status"></p>
<footer>
<form id="ask"><label for="question" class="hidden">message</label><textarea id="question" rows="1" placeholder="Message" autofocus></textarea><button id="send">Send</button><button type="button" id="stop" hidden>Stop</button></form>
</footer>
<noscript>This page talks to the server with a small script of its own.</noscript>
<script>${raw(chatScript)}</script>
</body>
</html>
`.toString();
  return { html: page, policy };
}
