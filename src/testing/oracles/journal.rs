//! Law 10: a journal cut at any byte resumes to the result that the whole run gave, and loses no finished trial; one
//! that is broken in any other way is refused and left as it is, and so are bytes that no run of this program wrote.

use std::{
    cell::OnceCell,
    fs,
    path::PathBuf,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use arbitrary::{Arbitrary, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::{
    checkpoint::Checkpoint,
    edit::Edit,
    kernels::Kernel,
    record::{
        Record,
        journal::{Journal, JournalError, Resumed, parse, same_result},
    },
    search::{Job, Progress, RunError, Session, Settings, Spec},
    subject::{Prompt, Subject},
    team::Team,
    testing::fixture::Fixture,
};

const LAW: u8 = 10;
const CUT: &str = "a journal cut at any byte resumes to the result of the whole run";
const BROKEN: &str = "a journal that is broken is refused and left as it is";
const FOREIGN: &str = "bytes that no run wrote are never taken for a record that was cut short";

/// How every record begins.
const BEGINS: &[u8] = b"{\"schema\":1,\"trial\":";

/// Beginnings of files that are no journals, and of lines that are no records.
const STRANGERS: [&[u8]; 14] = [
    b"my notes",
    b" ",
    b"\0",
    b"{",
    b"{\"",
    b"{\"schema\":1,",
    b"{\"schema\":1,\"recipe\":[",
    b"{\"schema\":1,\"trial\":0,\"model\":\"x\"}",
    b"{\"schema\":1,\"trial\":0,\"model\":\"x\",\"revision\":null,\"model_digest\":\"00",
    b"{\"model_type\":\"llama\",\"vocab_size\":96",
    b"[1,2",
    b"<!DOCTYPE html>",
    b"\x1f\x8b\x08",
    b"\xef\xbb\xbf{",
];

/// A journal of a small run, cut and perhaps overwritten, with what somebody else wrote behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Torn {
    /// Bytes that are left, modulo the number of all and one more.
    pub left: u16,
    /// Written over what is left: places, modulo its length, and bytes.
    pub written: Vec<(u16, u8)>,
    /// Bytes of another's behind what is left.
    #[serde(default)]
    pub appended: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Torn {
    /// Half of the cuts are at or beside the end of a line, half of the journals only cut.
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let left = if u.arbitrary()? {
            let end = with_run(|run| {
                let ends = run.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as u16);
                u.choose(&ends.collect::<Vec<_>>()).copied()
            })?;
            end + u.int_in_range(0..=2)? - 1
        } else {
            u.arbitrary()?
        };
        let written = if u.arbitrary()? { u.arbitrary()? } else { Vec::new() };
        if !u.ratio(1, 3)? {
            return Ok(Self { left, written, appended: Vec::new() });
        }
        let mut appended = u.choose(&STRANGERS)?.to_vec();
        appended.extend(u.arbitrary::<Vec<u8>>()?);
        // Half of them are files of their own.
        Ok(Self { left: if u.arbitrary()? { 0 } else { left }, written, appended })
    }
}

impl Case for Torn {
    const NAME: &'static str = "journal";
    const CLASSES: &'static [&'static str] = &[
        "cut within a record",
        "cut between records",
        "only the newline missing",
        "broken and refused",
        "foreign and refused",
    ];
    const ENTROPY: usize = 48;

    fn check(&self, reached: &mut Reached) -> LawResult {
        with_run(|run| run.torn(self, reached))
    }
}

/// The bytes of the small run's journal.
pub fn length() -> usize {
    with_run(|run| run.bytes.len())
}

/// A run of three trials on a model so small that running them again takes no time.
struct Run {
    subject: Subject,
    prompts: Vec<Prompt>,
    settings: Settings,
    jobs: Vec<Job>,
    bytes: Vec<u8>,
    records: Vec<Record>,
    path: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        // Another file of the folder for temporary ones.
        drop(fs::remove_file(&self.path));
    }
}

thread_local! {
    static RUN: OnceCell<Run> = const { OnceCell::new() };
}

fn with_run<T>(f: impl FnOnce(&Run) -> T) -> T {
    RUN.with(|run| f(run.get_or_init(Run::new)))
}

impl Run {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let fixture = Fixture { num_hidden_layers: 1, ..Fixture::default() };
        let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
        let team = Arc::new(Team::new(1));
        let subject = Subject::new("small".to_owned(), None, checkpoint, Kernel::best(), team).expect("no tokenizer");
        let prompts = vec![subject.prompt_of_ids(vec![5, 9]).expect("ids")];
        let edits: Vec<Edit> =
            ["clean", "shift:7", "flip:scales[2,1].14"].map(|edit| edit.parse().expect("an edit")).to_vec();
        let name = format!("headroom-law-10-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut run = Self {
            subject,
            prompts,
            settings: Settings::given(2, 9.0),
            jobs: Job::all(&edits, 1),
            bytes: Vec::new(),
            records: Vec::new(),
            path: std::env::temp_dir().join(name),
        };
        let mut session = run.session();
        session.begin(run.spec(), &mut |_| Ok(())).expect("nothing is in its way");
        let records = session.run(&run.jobs, |_| Ok(())).expect("trials");
        drop(session);
        for record in &records {
            run.bytes.extend(serde_json::to_vec(record).expect("a record"));
            run.bytes.push(b'\n');
        }
        run.records = records;
        run
    }

    fn session(&self) -> Session<'_> {
        Session::new(&self.subject, &self.prompts, self.settings.clone())
    }

    fn spec(&self) -> Spec {
        Spec { command: "probe", trials: Some(self.jobs.len()), ..Spec::default() }
    }

    fn torn(&self, torn: &Torn, reached: &mut Reached) -> LawResult {
        let left = usize::from(torn.left) % (self.bytes.len() + 1);
        let mut bytes = self.bytes[..left].to_vec();
        for &(at, byte) in torn.written.iter().filter(|_| left > 0) {
            bytes[usize::from(at) % left] = byte;
        }
        bytes.extend(&torn.appended);
        let own = self.bytes.starts_with(&bytes);
        let last = bytes.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let begins = last.iter().zip(BEGINS).all(|(a, b)| a == b);
        let foreign = !begins || (left == 0 && bytes.trim_ascii().is_empty() && !bytes.is_empty());
        let read = || fs::read(&self.path).expect("a file for temporary data can be read");
        fs::write(&self.path, &bytes).expect("a file for temporary data can be written");
        let mut session = self.session();
        let mut resumed = None;
        let begun = session.begin(self.spec(), &mut |progress| {
            if let Progress::Begins(mut beginning) = progress {
                let mut journal = Journal::open(&self.path)?;
                let found = journal.resume(&beginning.expectation)?;
                beginning.resume(found.records.clone());
                resumed = Some((journal, found));
            }
            Ok(())
        });
        let on_disk = read();
        let (mut journal, Resumed { records: finished, cut }) = match begun {
            Ok(()) => resumed.expect("the journal was resumed"),
            Err(RunError::Journal(error)) => {
                claim!(LAW, !own, CUT, "cut at {left} it is refused: {error}");
                let count = bytes.len();
                claim!(LAW, on_disk == bytes, BROKEN, "{error}, and {} of {count} bytes are left", on_disk.len());
                let named = matches!(
                    error,
                    JournalError::Line { .. }
                        | JournalError::Schema { .. }
                        | JournalError::OtherRun { .. }
                        | JournalError::Contradiction { .. }
                        | JournalError::NotAJournal { .. }
                        | JournalError::End { .. }
                );
                claim!(LAW, named, BROKEN, "{error}");
                reached.one(if torn.appended.is_empty() { "broken and refused" } else { "foreign and refused" });
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        // Blank space behind whole lines is no loss.
        let blank = !finished.is_empty() && last.trim_ascii().is_empty();
        claim!(LAW, !foreign || blank, FOREIGN, "{:?} is taken for a record", String::from_utf8_lossy(last));
        let kept = bytes.len() - cut as usize;
        claim!(LAW, on_disk.starts_with(&bytes[..kept]), CUT, "cut at {left}, more than {cut} bytes are taken off");
        // What is read again is what was taken: whole lines and nothing else.
        let again = parse(&on_disk, &self.path).expect("what was resumed is whole");
        claim!(LAW, again.cut == 0 && !again.unended, CUT, "cut at {left}, {} bytes are left over", again.cut);
        if !own {
            // Another byte may have made another number of a time, or a model of another name.
            return Ok(());
        }
        let left = bytes.len();
        let ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let unended = left < self.bytes.len() && self.bytes[left] == b'\n';
        claim!(
            LAW,
            finished.len() == ends + usize::from(unended) && finished == self.records[..finished.len()],
            CUT,
            "cut at {left}, {} of {ends} finished trials are known",
            finished.len()
        );
        let mut lines = Vec::new();
        let records = session.run(&self.jobs, |progress| {
            if let Progress::Record { record, resumed: false } = progress {
                lines.push(serde_json::to_vec(record).expect("a record"));
            }
            Ok(())
        });
        let records = records.expect("trials");
        for mut line in lines {
            line.push(b'\n');
            journal.append(&line).expect("a file that can be written");
        }
        let same = |found: &[Record]| {
            found.len() == self.records.len() && found.iter().zip(&self.records).all(|(a, b)| same_result(a, b))
        };
        claim!(LAW, same(&records), CUT, "cut at {left}, the run gives other records");
        let whole: Vec<Record> =
            parse(&read(), &self.path).expect("a journal").records.into_iter().map(|(_, record)| record).collect();
        claim!(LAW, same(&whole), CUT, "cut at {left}, the journal holds other records");
        let within = !unended && left > 0 && bytes.last() != Some(&b'\n');
        reached.one_if(within, "cut within a record");
        reached.one_if(!within && !unended, "cut between records");
        reached.one_if(unended, "only the newline missing");
        Ok(())
    }
}

impl Torn {
    /// The cut that leaves `left` bytes, and nothing else.
    pub const fn cut(left: u16) -> Self {
        Self { left, written: Vec::new(), appended: Vec::new() }
    }
}
