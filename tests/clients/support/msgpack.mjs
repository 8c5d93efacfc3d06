// MessagePack, only as far as a test must write it: what emitters of Node put on Redis, and what they never would.

const head = (byte, size, value) => {
  const bytes = Buffer.alloc(1 + size);
  bytes[0] = byte;
  if (size > 0) bytes.writeUIntBE(value, 1, size);
  return bytes;
};

/** The first of the forms `[most, byte, size]` that holds `length`. */
const sized = (length, ...forms) => {
  const [, byte, size] = forms.find(([max]) => length <= max);
  return size === 0 ? head(byte | length, 0) : head(byte, size, length);
};

/** The bytes of a value. Integers outside of 32 bits and fractions are floats; Buffers are binary. */
export function pack(value) {
  if (value === null || value === undefined) return Buffer.from([0xc0]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.from([value]);
    if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return head(0xce, 4, value);
    const bytes = Buffer.alloc(9, 0xcb);
    bytes.writeDoubleBE(value, 1);
    return bytes;
  }
  if (typeof value === 'string') {
    const bytes = Buffer.from(value);
    return Buffer.concat([
      sized(bytes.length, [31, 0xa0, 0], [0xff, 0xd9, 1], [0xffff, 0xda, 2], [2 ** 32, 0xdb, 4]),
      bytes,
    ]);
  }
  if (Buffer.isBuffer(value)) {
    return Buffer.concat([sized(value.length, [0xff, 0xc4, 1], [0xffff, 0xc5, 2], [2 ** 32, 0xc6, 4]), value]);
  }
  if (Array.isArray(value)) {
    return Buffer.concat([sized(value.length, [15, 0x90, 0], [0xffff, 0xdc, 2]), ...value.map(pack)]);
  }
  const pairs = Object.entries(value).flat().map(pack);
  return Buffer.concat([sized(pairs.length / 2, [15, 0x80, 0], [0xffff, 0xde, 2]), ...pairs]);
}

/** What `@socket.io/redis-emitter` publishes for `to(...rooms).emit(event, ...args)`. */
export function emitted(rooms, event, ...args) {
  const packet = { type: 2, data: [event, ...args], nsp: '/' };
  return pack(['emitter', packet, { rooms, flags: {}, except: [] }]);
}
