//! candle's quantized Llama on a GGUF file: seconds for the prompt and for greedy decoding, as lines of `name value`.
//!
//! `peer-candle MODEL.gguf DECODED IDS...`

use std::time::Instant;

use candle_core::{Device, Result, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a GGUF file");
    let decoded: usize = arguments.next().and_then(|n| n.parse().ok()).expect("tokens to decode");
    let prompt: Vec<u32> = arguments.map(|id| id.parse().expect("a token id")).collect();
    let mut file = std::fs::File::open(path)?;
    let content = gguf_file::Content::read(&mut file)?;
    let device = Device::Cpu;
    let mut model = ModelWeights::from_gguf(content, &mut file, &device)?;
    let start = Instant::now();
    let logits = model.forward(&Tensor::new(prompt.as_slice(), &device)?.unsqueeze(0)?, 0)?;
    let mut token = logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?;
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut text = vec![token];
    for i in 0..decoded {
        let logits = model.forward(&Tensor::new(&[token], &device)?.unsqueeze(0)?, prompt.len() + i)?;
        token = logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?;
        text.push(token);
    }
    let decode = start.elapsed().as_secs_f64();
    println!("prefill_s {prefill:.6}");
    println!("decode_tokens_per_s {:.3}", decoded as f64 / decode);
    println!("text {:?}", &text[..text.len().min(10)]);
    Ok(())
}
