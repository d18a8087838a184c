//! A record's labels, from the measurements that it holds: the only way in which a trial is judged, so that what
//! is computed anew from a file is what the run itself would have said.

use super::{Expected, Record};
use crate::coherence::{Evidence, judge, right};

impl Record {
    /// Sets verdict, tags, length of the coherent prefix and whether the response is right, under the threshold and the
    /// calibration that the record holds.
    pub fn label(&mut self) {
        // What was not finite is `null`, and stays without a number.
        let surprise: Vec<f64> = self.surprise.iter().map(|surprise| surprise.unwrap_or(f64::NAN)).collect();
        let right = right(&self.text, &self.expected_texts);
        let judgement = judge(&Evidence {
            tokens: &self.tokens,
            finish: self.finish,
            clean_tokens: &self.clean.tokens,
            clean_finish: self.clean.finish,
            surprise: &surprise,
            divergence: self.kl_mean,
            threshold: self.threshold,
            ordinary: self.run.calibration.as_ref().map(|calibration| calibration.ordinary),
            prompt: &self.prompt,
            text: &self.text,
            clean_text: &self.clean.text,
            right,
        });
        self.verdict = judgement.verdict;
        self.tags = judgement.tags;
        self.coherent_tokens = judgement.coherent_steps;
        self.expected = right.map(|right| if right { Expected::Right } else { Expected::Wrong });
    }
}
