// Files and batches of the scripted server. Both lie in its folder; what a batch answers is billed when it is done.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const most = { requests: 50_000, bytes: 200_000_000 };

export function batchRoutes({ folder, settings, complete, bill, send, sendError, bytesOf, wait }) {
  const files = join(folder, "files");
  const batches = join(folder, "batches");
  for (const path of [files, batches]) mkdirSync(path, { recursive: true });
  const fileOf = (id) => join(files, `${id}.jsonl`);
  const number = (path) => String(readdirSync(path).length + 1).padStart(6, "0");
  const save = (batch) => writeFileSync(join(batches, `${batch.id}.json`), JSON.stringify(batch));
  const load = (id) => JSON.parse(readFileSync(join(batches, `${id}.json`), "utf8"));

  function addFile(content, purpose) {
    const id = `file-${number(files)}`;
    writeFileSync(fileOf(id), content);
    const created_at = Math.floor(Date.now() / 1000);
    return { id, object: "file", bytes: Buffer.byteLength(content), filename: `${id}.jsonl`, purpose, created_at };
  }

  function rowsOf(id) {
    return readFileSync(fileOf(id), "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  /** Why a batch cannot be done; the limits are those that OpenAI publishes. */
  function objection(id) {
    const content = readFileSync(fileOf(id));
    const rows = rowsOf(id);
    if (settings.batch.refused) return { code: "refused", message: settings.batch.refused, line: null };
    if (content.length > most.bytes) return { code: "too_large", message: `${content.length} bytes`, line: null };
    if (rows.length > most.requests) return { code: "too_many", message: `${rows.length} requests`, line: null };
    if (new Set(rows.map((row) => row.custom_id)).size < rows.length)
      return { code: "duplicate_custom_id", message: "a custom_id is there twice", line: null };
    const models = new Set(rows.map((row) => row.body.model));
    if (models.size > 1) return { code: "mismatched_model", message: "more than one model", line: null };
    const foreign = rows.findIndex((row) => row.url !== "/v1/chat/completions" || row.method !== "POST");
    return foreign < 0 ? undefined : { code: "invalid_url", message: rows[foreign].url, line: foreign + 1 };
  }

  async function work(batch) {
    await wait(settings.batch.milliseconds ?? 50);
    const { failed = [], expiredAfter = Number.POSITIVE_INFINITY, cancelled } = settings.batch;
    const objected = objection(batch.input_file_id);
    if (objected) return save({ ...batch, status: "failed", errors: { object: "list", data: [objected] } });
    if (cancelled) return save({ ...batch, status: "cancelled" });
    const output = [];
    const errors = [];
    for (const [index, { custom_id, body }] of rowsOf(batch.input_file_id).entries()) {
      const row = (value) => JSON.stringify({ id: `${batch.id}-${index}`, custom_id, ...value });
      if (index >= expiredAfter) {
        errors.push(
          row({
            response: null,
            error: {
              code: "batch_expired",
              message: "This request could not be executed before the completion window expired.",
            },
          }),
        );
      } else if (failed.includes(index)) {
        const error = { message: "The server had an error", type: "server_error", code: null };
        errors.push(row({ response: { status_code: 500, request_id: `req-${index}`, body: { error } }, error: null }));
      } else {
        const made = await complete(body, 0.5);
        bill(body, custom_id, made, { batch: batch.id });
        output.push(
          row({ response: { status_code: 200, request_id: `req-${index}`, body: made.completion }, error: null }),
        );
      }
    }
    // The order of the answers is nobody's promise.
    output.reverse();
    save({
      ...batch,
      status: Number.isFinite(expiredAfter) ? "expired" : "completed",
      ...(output.length > 0 ? { output_file_id: addFile(`${output.join("\n")}\n`, "batch_output").id } : {}),
      ...(errors.length > 0 ? { error_file_id: addFile(`${errors.join("\n")}\n`, "batch_output").id } : {}),
    });
  }

  return async function route(path, request, response) {
    const [, , kind, id, part] = path.split("/");
    if (kind === "files" && request.method === "POST") {
      const form = await new Response(await bytesOf(request), {
        headers: { "content-type": request.headers["content-type"] },
      }).formData();
      send(response, 200, addFile(await form.get("file").text(), form.get("purpose")));
    } else if (kind === "files" && id && part === "content" && existsSync(fileOf(id))) {
      response.writeHead(200, { "content-type": "application/octet-stream" });
      response.end(readFileSync(fileOf(id)));
    } else if (kind === "batches" && request.method === "POST" && !id) {
      const asked = JSON.parse((await bytesOf(request)).toString("utf8"));
      if (!existsSync(fileOf(asked.input_file_id))) sendError(response, 400, "no such file", "invalid_file");
      else {
        const made = {
          id: `batch-${number(batches)}`,
          object: "batch",
          status: "in_progress",
          created_at: Math.floor(Date.now() / 1000),
          ...asked,
        };
        save(made);
        void work(made);
        if (settings.batch.dropMaking) {
          settings.batch = { ...settings.batch, dropMaking: false };
          request.socket.destroy();
        } else send(response, 200, made);
      }
    } else if (kind === "batches" && id && existsSync(join(batches, `${id}.json`))) send(response, 200, load(id));
    else if (kind === "batches" && !id) {
      const data = readdirSync(batches)
        .sort()
        .reverse()
        .map((name) => load(name.replace(".json", "")));
      send(response, 200, {
        object: "list",
        data,
        has_more: false,
        first_id: data[0]?.id ?? null,
        last_id: data.at(-1)?.id ?? null,
      });
    } else return false;
    return true;
  };
}
