// llama.cpp, prebuilt in the npm package node-llama-cpp: the prompt, greedy decoding, and ten separate greedy generations.
//
//   llamacpp.mjs MODEL.gguf THREADS IDS...      lines of `name value`
import { getLlama } from "node-llama-cpp";

const [path, threads, ...ids] = process.argv.slice(2);
const prompt = ids.map(Number);
const llama = await getLlama({ build: "never", gpu: false, maxThreads: Number(threads), logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({ contextSize: 512, threads: Number(threads) });

// A sequence of its own each time: nothing of an earlier generation is used again.
async function generate(tokens) {
  const sequence = context.getSequence();
  const out = [];
  const start = performance.now();
  let first;
  // On beyond the end of the answer: rates are of as many tokens as ours.
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    first ??= performance.now();
    out.push(token);
    if (out.length >= tokens) break;
  }
  const end = performance.now();
  await sequence.clearHistory();
  sequence.dispose();
  return { out, prefill: (first - start) / 1e3, decode: (end - first) / 1e3 };
}

await generate(10); // what is paged in belongs to loading
const long = await generate(65);
console.log("prefill_s", long.prefill);
console.log("decode_tokens_per_s", (long.out.length - 1) / long.decode);
console.log("text", JSON.stringify(model.detokenize(long.out.slice(0, 10))));
const start = performance.now();
for (let i = 0; i < 10; i++) await generate(10);
console.log("ten_generations_s", (performance.now() - start) / 1e3);
process.exit(0);
