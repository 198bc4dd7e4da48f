/**
 * Every stable error code of the package with its meaning in one line.
 *
 * The Rust core and the TypeScript side share these codes; the docs page of errors is made from this table.
 * A code is never renamed: programs match on it.
 */
export const errorCodes = {
  // Data: files and rows.
  ZA_DATA_FILE: "A data file cannot be opened or read.",
  ZA_DATA_JSON: "A row is not valid JSON.",
  ZA_DATA_TRUNCATED: "A data file ends in the middle of a row.",
  ZA_DATA_CHANGED: "A data file changed after it was indexed.",
  ZA_DATA_ENCODING: "A row is not valid UTF-8.",
  ZA_DATA_LINE_TOO_LONG: "A row is longer than the reader accepts.",
  ZA_DATA_FORMAT: "The columns of a data set fit none of the known formats.",
  ZA_DATA_ROW: "A row misses a field, or a field has the wrong type.",
  ZA_DATA_NO_ANSWER: "A conversation holds no assistant turn, so there is nothing to learn.",
  ZA_DATA_EQUAL_PAIR: "Chosen and rejected are the same.",
  ZA_DATA_UNPAIRED: "The rows are unpaired preferences (one completion and a label).",
  ZA_DATA_TOO_LONG: "A row is longer than the maximal length and cannot be cut without emptying its answer.",
  ZA_DATA_EMPTY: "A data set has no usable row.",
  ZA_DATA_INDEX: "A row index lies outside the data set.",
  // Conversations: raised by the readers and by the core's renderer.
  ZA_MESSAGE: "A message is not an object with a role.",
  ZA_MESSAGE_CONTENT: "The content of a message is not text.",
  ZA_ROLE_ORDER: "A message has a role that is unknown, or that may not stand where it stands.",
  ZA_EMPTY_ANSWER: "An assistant turn is empty.",
  // Configuration.
  ZA_CONFIG_INVALID: "A configuration has unknown keys, wrong values or combinations that cannot be honoured.",
  ZA_ARGUMENT: "A function of the core was called with arguments that do not fit.",
  ZA_REFERENCE_CACHE: "A file of reference log-probs belongs to another reference or other rows, or is damaged.",
  ZA_THREADS: "The number of threads cannot be used.",
  // Model files and models.
  ZA_MODEL_INVALID: "A model cannot be used for what is asked of it.",
  ZA_MODEL_NOT_FOUND: "A model folder or file does not exist.",
  ZA_MODEL_FORMAT: "A model file is truncated, damaged or malformed.",
  ZA_MODEL_CONFIG: "A field of a model's config.json is missing or has a wrong value.",
  ZA_MODEL_UNSUPPORTED: "A model needs something that zephyr-align does not implement.",
  ZA_MODEL_FROZEN: "Weights that are kept as bfloat16 or NF4 cannot be trained themselves.",
  ZA_ADAPTER_CONFIG: "An adapter's configuration has a value that cannot be used, or asks for what is not implemented.",
  ZA_ADAPTER_BASE: "An adapter was made for another model: names or shapes differ.",
  ZA_ADAPTER_STACKED: "An adapter is asked for over a model that has one already.",
  ZA_TENSOR_MISSING: "A tensor that the config asks for is not in the weights.",
  ZA_TENSOR_SHAPE: "A tensor has another shape than the config asks for.",
  ZA_TENSOR_DTYPE: "A tensor has a type that cannot be read as weights.",
  ZA_SHARD_MISSING: "A shard that the index names does not exist.",
  ZA_TOKEN_RANGE: "A token id lies outside the vocabulary.",
  ZA_CONTEXT_LENGTH: "A text is longer than the model's positions.",
  ZA_EMPTY_PROMPT: "There are no tokens to continue.",
  ZA_GENERATE_OPTION: "An option of generation has a value that cannot be used.",
  // Text.
  ZA_TOKENIZER_INVALID: "A tokenizer cannot be used, or does not belong to the model.",
  ZA_TEMPLATE: "A chat template does not parse, failed, or ran too long.",
  ZA_TEMPLATE_SPANS: "A chat template changes contents, so that it cannot be told whose tokens are whose.",
  ZA_TOKENIZER_FILE: "A tokenizer file cannot be read.",
  ZA_TOKENIZER_MERGE: "A merge of a tokenizer is malformed.",
  ZA_TOKENIZER_VOCABULARY: "A tokenizer's vocabulary contradicts itself.",
  ZA_TOKENIZER_SPECIAL: "A special token that is named does not exist.",
  ZA_TOKENIZER_CONFIG: "tokenizer_config.json cannot be understood.",
  ZA_TOKENIZER_UNSUPPORTED: "A tokenizer is of a kind that is not supported.",
  ZA_TOKENIZER_ENCODE: "The tokenizer failed on a text.",
  ZA_TOKENIZER_DECODE: "The tokenizer failed on token ids.",
  ZA_TOKENIZER_TRAIN: "A tokenizer could not be trained.",
  ZA_MASK_NO_EOS: "No end token follows an answer, so that a model would never learn to stop.",
  ZA_MASK_EMPTY: "No token of a row is supervised.",
  // Training.
  ZA_BATCH: "A batch is malformed.",
  ZA_NOT_FINITE: "A loss or a log-prob is NaN or infinite.",
  ZA_LOSS_LENGTH: "The log-probs of a batch have different lengths.",
  ZA_LOSS_DENOMINATOR: "A loss would be divided by nothing.",
  ZA_TRAIN_NO_SUPERVISED_TOKEN: "No token of a sequence or of the whole data set is supervised.",
  ZA_TRAIN_NOT_FINITE: "A loss or a gradient became NaN or infinite.",
  ZA_TRAIN_STEP_ZERO: "The first preference step does not start at loss ln 2 and rewards 0.",
  ZA_TRAIN_STATE: "A checkpoint cannot be read, written or resumed.",
  ZA_TRAIN_STALLED: "A step took longer than stepTimeoutSeconds.",
  ZA_CHECKPOINT_BROKEN: "A run folder holds checkpoints, but none that verifies.",
  ZA_RESUME_DIFFERS: "A run is to be resumed with other options, data, template or version than it was saved with.",
  // Judging.
  ZA_JUDGE_FILES: "A benchmark's folder lacks a file, or a file is not what the benchmark's own scripts read.",
  ZA_JUDGE_PROMPT: "A judge's prompt has a placeholder that cannot be filled.",
  ZA_JUDGE_JOIN: "Questions, answers or outputs do not belong together: ids or instructions are missing on one side.",
  ZA_JUDGE_DUPLICATE: "The same question, answer or judgment is there more than once.",
  ZA_JUDGE_INCOMPLETE: "Too few judgments can be used for a score.",
  ZA_JUDGE_CAPABILITY: "The judge cannot do what the protocol needs.",
  ZA_JUDGE_RESULT: "A file is no judged run, or one of a version that is not known.",
  ZA_JUDGE_FIT: "A length-controlled rate cannot be computed from what was given.",
  ZA_PULL: "A file of a benchmark cannot be fetched.",
  ZA_PULL_HASH: "A fetched file is not the one whose hash is known.",
  // Run folder and disk.
  ZA_IO: "A file operation failed.",
  ZA_DISK_FULL: "There is no space left on the device.",
  ZA_DISK_SPACE: "There is no room for the checkpoints and the model of a run that is about to start.",
  ZA_FOLDER_NOT_EMPTY: "The output folder already holds files.",
  ZA_FOLDER_LOCKED: "Another run works in the output folder.",
  // Whole process.
  ZA_ABORTED: "The work was stopped by its abort signal.",
  ZA_OUT_OF_MEMORY: "There is not enough memory.",
  ZA_NATIVE_LOAD: "The native addon cannot be loaded on this platform.",
  ZA_INTERNAL: "A fault in zephyr-align itself.",
} as const;

/** A code of {@link errorCodes}. */
export type ErrorCode = keyof typeof errorCodes;
