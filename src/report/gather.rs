//! From files to runs: trials that belong together, however many files they came in.

use std::collections::HashMap;

use super::{Certificates, Source};
use crate::record::{Record, Restored, journal::same_result};

/// One run, put together from all files that hold a part of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The files.
    pub files: Vec<String>,
    /// Its trials, each once, ordered by number; at least one.
    pub records: Vec<Record>,
    /// The way back, where it was stored.
    pub restored: Option<Restored>,
}

/// All runs that some files hold.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The runs, in the order in which they were met.
    pub runs: Vec<Stored>,
    /// Certificates, each with its file.
    pub certificates: Vec<(String, Certificates)>,
    /// What the reader must know of the files: that one was cut short, that trials were given twice.
    pub notes: Vec<String>,
}

impl Gathered {
    /// Puts together what belongs together: trials of one model and of one run, by its `id`. Shards of a run become one
    /// run; of a trial that is there twice the first counts.
    pub fn of(sources: Vec<Source>) -> Self {
        let mut gathered = Self::default();
        let mut numbers: HashMap<[String; 4], usize> = HashMap::new();
        for source in sources {
            if source.cut {
                gathered.notes.push(format!(
                    "{} ends in the middle of a record, as after a kill: the {} trials before it are reported",
                    source.name,
                    source.records.len(),
                ));
            }
            gathered.certificates.extend(source.certificates.map(|certificates| (source.name.clone(), certificates)));
            let mut restored = source.restored;
            for record in source.records {
                let key =
                    [&record.model_digest, &record.head_digest, &record.run.id, &record.run.command].map(Clone::clone);
                let number = *numbers.entry(key).or_insert(gathered.runs.len());
                if number == gathered.runs.len() {
                    gathered.runs.push(Stored { files: Vec::new(), records: Vec::new(), restored: None });
                }
                let run = &mut gathered.runs[number];
                if !run.files.contains(&source.name) {
                    run.files.push(source.name.clone());
                }
                run.restored = run.restored.take().or_else(|| restored.take());
                run.records.push(record);
            }
        }
        for run in &mut gathered.runs {
            let given = run.records.len();
            run.records.sort_by_key(|record| record.trial);
            let again = |two: &[Record]| two[0].trial == two[1].trial;
            let contradiction = run.records.windows(2).any(|two| again(two) && !same_result(&two[0], &two[1]));
            run.records.dedup_by_key(|record| record.trial);
            if run.records.len() < given {
                let (times, files) = (given - run.records.len(), run.files.join(", "));
                let how =
                    if contradiction { "NOT always with the same result; the first counts" } else { "and count once" };
                gathered.notes.push(format!("trials are given again {times} times in {files}, {how}"));
            }
        }
        gathered
    }
}
