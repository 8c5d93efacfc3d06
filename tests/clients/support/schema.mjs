// As much of JSON Schema as the service's own documents use, read strictly: what no schema names may not be there.

/** Why `value` is not what `schema` of `document` says; nothing if it is. */
export function fault(document, schema, value, at = '$') {
  const parts = flat(document, schema);
  for (const part of parts) {
    for (const word of Object.keys(part)) if (!WORDS.has(word)) throw new Error(`unknown word ${word} in a schema`);
    const wrong = ownFault(document, part, value, at);
    if (wrong) return wrong;
  }
  const named = parts.filter((part) => part.properties);
  if (named.length > 0 && isObject(value) && !parts.some((part) => part.additionalProperties)) {
    const unknown = Object.keys(value).find((name) => !named.some((part) => name in part.properties));
    if (unknown !== undefined) return `${at}.${unknown}: is in no schema`;
  }
}

const WORDS = new Set(
  ('type const enum pattern minLength maxLength minimum maximum properties required items additionalProperties anyOf ' +
    'oneOf description').split(' '),
);

export const resolve = (document, ref) =>
  ref.slice(2).split('/').reduce((inside, name) => {
    const next = inside?.[name.replaceAll('~1', '/').replaceAll('~0', '~')];
    if (next === undefined) throw new Error(`${ref} leads nowhere`);
    return next;
  }, document);

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** The schemas that all have to hold, without `$ref` and `allOf`. */
function flat(document, { $ref, allOf = [], ...own }) {
  return [own, ...($ref ? [resolve(document, $ref)] : []), ...allOf].flatMap((part) =>
    part.$ref || part.allOf ? flat(document, part) : [part],
  );
}

const TYPES = {
  null: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  integer: (value) => Number.isInteger(value),
  string: (value) => typeof value === 'string',
  array: (value) => Array.isArray(value),
  object: isObject,
};

function ownFault(document, schema, value, at) {
  const wrong = (word) => `${at}: ${word} ${JSON.stringify(schema[word])}: ${JSON.stringify(value)?.slice(0, 200)}`;
  if (schema.type && !TYPES[schema.type](value)) return wrong('type');
  if ('const' in schema && value !== schema.const) return wrong('const');
  if (schema.enum && !schema.enum.includes(value)) return wrong('enum');
  if (schema.pattern && !new RegExp(schema.pattern, 'u').test(value)) return wrong('pattern');
  if ('minLength' in schema && [...value].length < schema.minLength) return wrong('minLength');
  if ('maxLength' in schema && [...value].length > schema.maxLength) return wrong('maxLength');
  if (schema.minimum > value) return wrong('minimum');
  if (schema.maximum < value) return wrong('maximum');
  for (const [list, isRight] of [[schema.anyOf, (n) => n > 0], [schema.oneOf, (n) => n === 1]]) {
    const faults = list?.map((one) => fault(document, one, value, at));
    if (faults && !isRight(faults.filter((one) => !one).length)) return `${at}: none or too many of ${faults.join(' | ')}`;
  }
  if (schema.items) {
    for (const [n, item] of value.entries()) {
      const wrong = fault(document, schema.items, item, `${at}[${n}]`);
      if (wrong) return wrong;
    }
  }
  if (!isObject(value)) return;
  const missing = schema.required?.find((name) => !(name in value));
  if (missing) return `${at}.${missing}: is missing`;
  for (const [name, member] of Object.entries(value)) {
    const inner = schema.properties?.[name] ?? schema.additionalProperties;
    const wrong = inner && fault(document, inner, member, `${at}.${name}`);
    if (wrong) return wrong;
  }
}
