// The safetensors format: 8 bytes of header length, a JSON header, the values (github.com/huggingface/safetensors).

/** Return {name: {shape, values: Float32Array}} of a file's bytes (ArrayBuffer). */
export function readTensors(bytes) {
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  return Object.fromEntries(
    entries.map(([name, { dtype, shape, data_offsets: [start, end] }]) => {
      if (dtype !== "F32") throw new Error(`tensor ${name} must be F32, got ${dtype}`);
      return [name, { shape, values: new Float32Array(bytes.slice(8 + length + start, 8 + length + end)) }];
    }),
  );
}
