type Schema = Record<string, unknown>;

/** The smallest value that a JSON schema allows, for schemas that the offline teacher knows nothing of. */
export function instanceOf(schema: Schema): unknown {
  if ("const" in schema) return schema.const;
  if (Array.isArray(schema.enum)) return schema.enum[0];
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(alternatives)) return instanceOf(alternatives[0] as Schema);
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case "object": {
      const properties = Object.entries((schema.properties ?? {}) as Record<string, Schema>);
      return Object.fromEntries(properties.map(([name, value]) => [name, instanceOf(value)]));
    }
    case "array":
      return Array.from({ length: Number(schema.minItems ?? 0) }, () => instanceOf((schema.items ?? {}) as Schema));
    case "string":
      return "-".repeat(Number(schema.minLength ?? 0));
    case "integer":
    case "number":
      return Number(schema.minimum ?? 0);
    case "boolean":
      return false;
    default:
      return null;
  }
}
