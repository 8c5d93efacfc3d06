// Redis' protocol, both versions: what a test must say to a server, and take apart of what goes by.

const CRLF = Buffer.from('\r\n');

/** An error that a server answered with. */
export class RedisError extends Error {}

/** A command as clients send it. */
export function encode(args) {
  const parts = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg));
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, CRLF);
  }
  return Buffer.concat(parts);
}

/** The value that begins at `at`, and where it ends; `undefined` if it is not all there. Bulk strings are Buffers. */
function parse(buffer, at) {
  const lineEnd = buffer.indexOf(CRLF, at);
  if (lineEnd < 0) return undefined;
  const type = String.fromCharCode(buffer[at]);
  const line = buffer.toString('utf8', at + 1, lineEnd);
  const next = lineEnd + 2;
  switch (type) {
    case '+':
    case ',':
    case '(':
      return { value: line, end: next };
    case '-':
      return { value: new RedisError(line), end: next };
    case ':':
      return { value: Number(line), end: next };
    case '#':
      return { value: line === 't', end: next };
    case '_':
      return { value: null, end: next };
    case '$':
    case '=':
    case '!': {
      const length = Number(line);
      if (length < 0) return { value: null, end: next };
      const end = next + length;
      if (buffer.length < end + 2) return undefined;
      return { value: buffer.subarray(next, end), end: end + 2 };
    }
    case '*':
    case '~':
    case '>':
    case '%': {
      const length = Number(line) * (type === '%' ? 2 : 1);
      if (length < 0) return { value: null, end: next };
      const value = [];
      let end = next;
      while (value.length < length) {
        const item = parse(buffer, end);
        if (item === undefined) return undefined;
        value.push(item.value);
        end = item.end;
      }
      return { value, end };
    }
    default:
      throw new Error(`not Redis' protocol: ${JSON.stringify(type + line.slice(0, 80))}`);
  }
}

/** Cuts a stream into values. */
export class Reader {
  rest = Buffer.alloc(0);

  /** The values that `chunk` completes, each `{ value, bytes }`. */
  push(chunk) {
    this.rest = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    const values = [];
    let at = 0;
    for (let item; at < this.rest.length && (item = parse(this.rest, at)); at = item.end) {
      values.push({ value: item.value, bytes: this.rest.subarray(at, item.end) });
    }
    this.rest = this.rest.subarray(at);
    return values;
  }
}

/** A value with strings for Buffers. */
export function asText(value) {
  if (Buffer.isBuffer(value)) return value.toString('utf8');
  return Array.isArray(value) ? value.map(asText) : value;
}
