// llama.cpp, prebuilt in the npm package node-llama-cpp: the prompt, greedy decoding, and ten separate greedy generations.
//
//   llamacpp.mjs MODEL.gguf THREADS IDS...               lines of `name value`
//   llamacpp.mjs MODEL.gguf THREADS prompts TOKENS...    the time of prompts of so many tokens
import { getLlama } from "node-llama-cpp";

const [path, threads, ...ids] = process.argv.slice(2);
const lengths = ids[0] === "prompts" ? ids.slice(1).map(Number) : [];
// Ours makes its ids by the same rule.
const made = (tokens) => Array.from({ length: tokens }, (_, i) => 1000 + ((i * 7919) % 40000));
const prompt = lengths.length ? made(8) : ids.map(Number);
const llama = await getLlama({ build: "never", gpu: false, maxThreads: Number(threads), logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({ contextSize: Math.max(512, ...lengths.map((n) => n + 8)), threads: Number(threads) });

// A sequence of its own each time: nothing of an earlier generation is used again.
async function generate(tokens, prompt) {
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

await generate(10, prompt); // what is paged in belongs to loading
for (const n of lengths) {
  const { prefill } = await generate(1, made(n));
  console.log(`prompt_${n}`, prefill);
}
if (lengths.length) process.exit(0);
const long = await generate(65, prompt);
console.log("prefill_s", long.prefill);
console.log("decode_tokens_per_s", (long.out.length - 1) / long.decode);
console.log("text", JSON.stringify(model.detokenize(long.out.slice(0, 10))));
const start = performance.now();
for (let i = 0; i < 10; i++) await generate(10, prompt);
console.log("ten_generations_s", (performance.now() - start) / 1e3);
process.exit(0);
