/** What a Parquet file's footer says: the schema, and where the row groups and their columns lie. Nothing of it is trusted. */
import { type FileMetaData, parquetMetadata, parquetSchema, type SchemaElement, type SchemaTree } from "hyparquet";
import { DataError, type Place } from "../../errors";
import type { ByteSource } from "../file-bytes";

/** A node of the schema, as rows are put together. */
export type Node = Leaf | Struct | List | MapNode;

interface NodeBase {
  /** Definition level from which on the node's value is not null. */
  definition: number;
  /** Index of the first leaf at or under the node. */
  firstLeaf: number;
  /** Index behind the last leaf at or under the node. */
  endLeaf: number;
}

/** A column of values. */
export interface Leaf extends NodeBase {
  kind: "leaf";
  /** Path as pyarrow prints it, for example `messages.list.element.content`. */
  path: string;
  element: SchemaElement;
  /** Nodes from the root to the leaf; what hyparquet's decoders take. */
  schemaPath: SchemaTree[];
  maxDefinition: number;
  maxRepetition: number;
}

/** A group of named fields. */
export interface Struct extends NodeBase {
  kind: "struct";
  fields: { name: string; node: Node }[];
}

/** A list; its elements stand behind each other at one repetition level. */
export interface List extends NodeBase {
  kind: "list";
  element: Node;
  /** Definition level from which on the list has an element. */
  present: number;
  /** Repetition level at which a further element begins. */
  repetition: number;
}

/** A map, read as an object. */
export interface MapNode extends NodeBase {
  kind: "map";
  entries: List;
}

/** The values of one leaf in one row group. */
export interface ColumnChunk {
  leaf: Leaf;
  /** Offsets in the file: from the dictionary page or the first data page to the end of the last. */
  start: number;
  end: number;
  codec: string;
  /** Entries, nulls included. */
  values: number;
  uncompressed: number;
}

/** Some neighbouring rows. */
export interface RowGroup {
  /** 0-based, as pyarrow counts. */
  index: number;
  firstRow: number;
  rows: number;
  chunks: ColumnChunk[];
  /** Bytes of all chunks when they are unpacked. */
  uncompressed: number;
}

/** A whole file. */
export interface Layout {
  rows: number;
  groups: RowGroup[];
  root: Struct;
  leaves: Leaf[];
}

const magic = "PAR1";
const encrypted = "PARE";
/** First guess at the footer's length: one read for most files. */
const footerGuess = 64 << 10;
/** Longest footer that is read (a real one has about 100 bytes for each column of each row group). */
const maximumFooter = 256 << 20;

const codecs: readonly string[] = ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"];

/**
 * Reads and checks a footer.
 *
 * @throws DataError `ZA_DATA_PARQUET` (damaged, or no Parquet file), `ZA_DATA_TRUNCATED` (the end is missing),
 * `ZA_DATA_PARQUET_FEATURE` (encrypted, or an unknown codec)
 */
export async function readLayout(source: ByteSource): Promise<Layout> {
  const place: Place = { file: source.name };
  const size = await source.size();
  const head = size === 0 ? "" : (await source.read(0, Math.min(4, size))).toString("latin1");
  if (head === encrypted) throw encryptedFile(place);
  if (head !== magic) {
    const found = size === 0 ? "it is empty" : `it begins with ${JSON.stringify(head)}, not with "${magic}"`;
    throw new DataError("ZA_DATA_PARQUET", `the file is no Parquet file: ${found}`, {
      place,
      remedy: head.startsWith("ver")
        ? "It is a Git LFS pointer: fetch the file itself."
        : "Check the file and its name.",
    });
  }
  const tail = await source.read(Math.max(0, size - footerGuess), size);
  const end = tail.subarray(Math.max(0, tail.length - 8));
  const endMagic = end.toString("latin1", 4);
  if (endMagic === encrypted) throw encryptedFile(place);
  const length = end.length === 8 ? end.readUInt32LE(0) : 0;
  if (size < 12 || endMagic !== magic || length > size - 12) {
    throw new DataError("ZA_DATA_TRUNCATED", "the file ends without the footer of a Parquet file", {
      place: { ...place, byte: size },
      remedy: "The footer comes last, so no row can be read without it. Download or write the file again.",
    });
  }
  if (length > maximumFooter) {
    throw damaged(place, `the footer claims ${length} bytes, more than the ${maximumFooter} that are read`);
  }
  const footer = length + 8 <= tail.length ? tail : await source.read(size - length - 8, size);
  return guarded(place, () => layoutOf(parquetMetadata(footer, { geoparquet: false }), size - length - 8, place));
}

/** Faults of the thrift parser and impossible structures become typed errors. */
function guarded(place: Place, read: () => Layout): Layout {
  try {
    return read();
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw damaged(place, `the footer cannot be read (${(error as Error).message})`, error);
  }
}

function layoutOf(metadata: FileMetaData, dataEnd: number, place: Place): Layout {
  const leaves: Leaf[] = [];
  const root = structOf(parquetSchema(metadata), { path: [], definition: 0, repetition: 0 }, leaves);
  if (leaves.length === 0) throw damaged(place, "the schema has no columns");
  const groups: RowGroup[] = [];
  let firstRow = 0;
  for (const [index, group] of metadata.row_groups.entries()) {
    const at = { ...place, rowGroup: index };
    const rows = count(group.num_rows, "rows", at);
    if (group.columns.length !== leaves.length) {
      throw damaged(at, `the row group has ${group.columns.length} columns, the schema ${leaves.length}`);
    }
    const chunks = leaves.map((leaf, column) => chunkOf(group.columns[column]!, leaf, dataEnd, at));
    const uncompressed = chunks.reduce((sum, chunk) => sum + chunk.uncompressed, 0);
    groups.push({ index, firstRow, rows, chunks, uncompressed });
    firstRow += rows;
  }
  const rows = count(metadata.num_rows, "rows", place);
  if (rows !== firstRow) throw damaged(place, `the footer says ${rows} rows, its row groups hold ${firstRow}`);
  return { rows, groups, root, leaves };
}

function chunkOf(
  column: FileMetaData["row_groups"][number]["columns"][number],
  leaf: Leaf,
  dataEnd: number,
  groupPlace: Place,
): ColumnChunk {
  const place = { ...groupPlace, field: leaf.path };
  const { meta_data: meta, file_path: path } = column;
  if (column.crypto_metadata !== undefined || meta === undefined) throw encryptedFile(place);
  if (path) throw feature(place, `the column lies in another file (${JSON.stringify(path)})`);
  if (!codecs.includes(meta.codec))
    throw feature(place, `the compression ${meta.codec ?? "(unknown)"} is not supported`);
  if (meta.type !== leaf.element.type) {
    throw damaged(place, `the column is of type ${meta.type}, the schema says ${leaf.element.type}`);
  }
  const data = count(meta.data_page_offset, "offset", place);
  // Some writers leave the dictionary's offset out or write 0.
  const dictionary = Number(meta.dictionary_page_offset ?? 0);
  const start = dictionary > 0 && dictionary < data ? dictionary : data;
  const end = start + count(meta.total_compressed_size, "compressed size", place);
  const values = count(meta.num_values, "values", place);
  // A row group without rows has pages nowhere.
  if (values > 0 && (start < 4 || end > dataEnd)) {
    throw damaged(place, `the column lies at bytes ${start} to ${end}, outside the ${dataEnd} bytes of data`);
  }
  return {
    leaf,
    start,
    end,
    codec: meta.codec,
    values,
    uncompressed: count(meta.total_uncompressed_size, "size", place),
  };
}

function count(value: bigint | number, what: string, place: Place): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0) throw damaged(place, `the footer's ${what} is ${value}`);
  return number;
}

/** Where a walk through the schema stands. */
interface Position {
  path: SchemaTree[];
  definition: number;
  repetition: number;
}

function entered(tree: SchemaTree, { path, definition, repetition }: Position): Position {
  const { repetition_type: kind } = tree.element;
  return {
    path: [...path, tree],
    // The root's own repetition type does not count.
    definition: path.length > 0 && kind !== "REQUIRED" ? definition + 1 : definition,
    repetition: path.length > 0 && kind === "REPEATED" ? repetition + 1 : repetition,
  };
}

/** A field; repeated without the name of a list it is a list all the same. */
function nodeOf(tree: SchemaTree, above: Position, leaves: Leaf[]): Node {
  if (tree.element.repetition_type !== "REPEATED") return singleNode(tree, entered(tree, above), leaves);
  return listOf(tree, above, above.definition, (inside) => singleNode(tree, inside, leaves));
}

/** The list whose repeated node is `repeated`. */
function listOf(repeated: SchemaTree, above: Position, definition: number, element: (inside: Position) => Node): List {
  const inside = entered(repeated, above);
  const node = element(inside);
  const { firstLeaf, endLeaf } = node;
  return {
    kind: "list",
    element: node,
    definition,
    present: inside.definition,
    repetition: inside.repetition,
    firstLeaf,
    endLeaf,
  };
}

/** What stands at a node, its own repetition type counted already. */
function singleNode(tree: SchemaTree, here: Position, leaves: Leaf[]): Node {
  const { converted_type: converted, logical_type: logical } = tree.element;
  const only = tree.children.length === 1 ? tree.children[0]! : undefined;
  const repeated = only?.element.repetition_type === "REPEATED" ? only : undefined;
  if (repeated && (converted === "LIST" || logical?.type === "LIST")) {
    // The rules of the format for what older writers made: the repeated node itself is the element, unless it is a group of one
    // field that is not named as such an element.
    const [inner] = repeated.children;
    const { name } = repeated.element;
    const wrapped = repeated.children.length === 1 && name !== "array" && name !== `${tree.element.name}_tuple`;
    return listOf(repeated, here, here.definition, (inside) =>
      wrapped ? nodeOf(inner!, inside, leaves) : singleNode(repeated, inside, leaves),
    );
  }
  if (repeated && repeated.children.length === 2 && (converted?.startsWith("MAP") || logical?.type === "MAP")) {
    const entries = listOf(repeated, here, here.definition, (inside) => structOf(repeated, inside, leaves));
    const { definition, firstLeaf, endLeaf } = entries;
    return { kind: "map", entries, definition, firstLeaf, endLeaf };
  }
  if (tree.children.length > 0) return structOf(tree, here, leaves);
  if (tree.element.type === undefined) throw new Error(`the group ${tree.path.join(".")} has no fields`);
  const leaf: Leaf = {
    kind: "leaf",
    path: tree.path.join("."),
    element: tree.element,
    schemaPath: here.path,
    definition: here.definition,
    maxDefinition: here.definition,
    maxRepetition: here.repetition,
    firstLeaf: leaves.length,
    endLeaf: leaves.length + 1,
  };
  leaves.push(leaf);
  return leaf;
}

function structOf(tree: SchemaTree, here: Position, leaves: Leaf[]): Struct {
  const inside = here.path.length === 0 ? entered(tree, here) : here;
  const firstLeaf = leaves.length;
  const fields = tree.children.map((child) => ({ name: child.element.name, node: nodeOf(child, inside, leaves) }));
  return { kind: "struct", fields, definition: inside.definition, firstLeaf, endLeaf: leaves.length };
}

/** The error for what contradicts itself or the format. */
export function damaged(place: Place, problem: string, cause?: unknown): DataError {
  return new DataError("ZA_DATA_PARQUET", problem, {
    place,
    remedy: 'Download or write the file again, or pass onBadRow: "skip" to leave its unreadable rows out.',
    cause,
  });
}

/** The error for what is legal and not implemented. */
export function feature(place: Place, problem: string): DataError {
  return new DataError("ZA_DATA_PARQUET_FEATURE", problem, {
    place,
    remedy: "Write the file again with pyarrow or DuckDB and their default options.",
  });
}

function encryptedFile(place: Place): DataError {
  return feature(place, "the file is encrypted");
}
