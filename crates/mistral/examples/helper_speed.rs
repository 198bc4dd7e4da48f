use std::{ops::ControlFlow, path::Path, time::Instant};
use zephyr_mistral::generate::*;
fn main() {
    let p = std::env::args().nth(1).unwrap();
    let t = Instant::now();
    let m = zephyr_mistral::weights::load(Path::new(&p)).unwrap();
    println!("load {:?} {:?}", t.elapsed(), m.report);
    let t = Instant::now();
    let m2 = zephyr_mistral::weights::load(Path::new(&p)).unwrap(); println!("load again {:?}", t.elapsed()); drop(m2);
    if let Some(out) = std::env::args().nth(2) {
        let t = Instant::now();
        zephyr_mistral::weights::save::save_safetensors(&m.weights, Path::new(&out), zephyr_mistral::weights::safetensors::FloatType::F32, 200 << 20).unwrap();
        println!("save {:?}", t.elapsed());
        let t = Instant::now();
        let l = zephyr_mistral::weights::load(Path::new(&out)).unwrap(); println!("load safetensors {:?} equal {}", t.elapsed(), l.weights.data == m.weights.data);
    }
    let prompt: Vec<u32> = (0..50).map(|i| 100 + i * 7).collect();
    for n in [1usize, 4, 8, 16, 32, 64] {
        for temperature in [0.0, 1.0] {
            let o = GenerateOptions { max_tokens: 40, temperature, top_p: 0.9, stop_token_ids: Some(vec![]), ..Default::default() };
            let r: Vec<_> = (0..n).map(|i| Request { prompt: prompt.clone(), options: GenerateOptions { seed: i as u64, ..o.clone() } }).collect();
            let mut g = Generator::new(&m.weights).with_max_active(n);
            let t = Instant::now();
            let mut first = None;
            g.generate_batch(&r, |_, _, _| { first.get_or_insert_with(|| t.elapsed()); ControlFlow::Continue(()) }).unwrap();
            let all = t.elapsed(); let f = first.unwrap();
            println!("n {n} T {temperature}: prefill {:.0} tok/s, decode {:.1} tok/s ({:.1} ms a step)", (n * 50) as f64 / f.as_secs_f64(), (n * 39) as f64 / (all - f).as_secs_f64(), (all - f).as_secs_f64() * 1e3 / 39.0);
        }
    }
}
