// Makes the model of this folder and reads it with @tensorflow/tfjs-core: `node make.cjs`, with that package and
// tfjs-backend-cpu installed. `expected.json` is what `tf.io.decodeWeights` makes of it: name, dtype, shape, values in hex.
const fs = require('fs'), path = require('path');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');

const ramp = (type, n) => Buffer.from(new type(Array.from({length: n}, (_, i) => (i * 37) % 251)).buffer);
const strings = Buffer.concat(['a', '', 'größe'].map(s => {
  const text = Buffer.from(s), head = Buffer.alloc(4);
  head.writeUInt32LE(text.length);
  return Buffer.concat([head, text]);
}));
const halves = Buffer.from(new Uint16Array([0x3c00, 0xc100, 0x0001, 0x7bff, 0x8000]).buffer);
const quantized = {scale: 0.1, min: -3.3};
const groups = [[
  ['flags', 'bool', [3], Buffer.from([1, 0, 1])],
  ['text', 'string', [3], strings],
  ['w', 'float32', [3, 5], ramp(Float32Array, 15)],
  ['n', 'int32', [], ramp(Int32Array, 1)],
  ['z', 'complex64', [2], ramp(Float32Array, 4)],
  ['empty', 'float32', [0, 2], Buffer.alloc(0)],
], [
  ['q8', 'float32', [2, 4], ramp(Uint8Array, 8), {...quantized, dtype: 'uint8'}],
  ['q16', 'float32', [4], ramp(Uint16Array, 4), {...quantized, dtype: 'uint16'}],
  ['qi', 'int32', [251], ramp(Uint8Array, 251), {scale: 0.5, min: -7.5, dtype: 'uint8'}],
  ['half', 'float32', [5], halves, {dtype: 'float16'}],
]];
const cuts = [[0, 30, 41], [0, 9, 13]];  // shards end within tensors and within elements
const manifest = [], expected = [];
groups.forEach((group, g) => {
  const data = Buffer.concat(group.map(w => w[3]));
  const paths = cuts[g].map((cut, i) => {
    const name = `group${g + 1}-shard${i + 1}of${cuts[g].length}.bin`;
    fs.writeFileSync(path.join(__dirname, name), data.subarray(cut, cuts[g][i + 1] ?? data.length));
    return name;
  });
  const weights = group.map(([name, dtype, shape, , quantization]) => ({name, shape, dtype, ...(quantization ? {quantization} : {})}));
  manifest.push({paths, weights});
  const decoded = tf.io.decodeWeights(data.buffer.slice(data.byteOffset, data.byteOffset + data.length), weights);
  for (const w of weights) {
    const v = decoded[w.name].dataSync();
    expected.push([w.name, w.dtype, w.shape, w.dtype === 'string' ? null : Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('hex')]);
  }
});
fs.writeFileSync(path.join(__dirname, 'model.json'), JSON.stringify({format: 'layers-model', modelTopology: {}, weightsManifest: manifest}) + '\n');
fs.writeFileSync(path.join(__dirname, 'expected.json'), JSON.stringify(expected) + '\n');
