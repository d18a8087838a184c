//! Law 10: a journal cut at any byte resumes to the result that the whole run gave, and loses no finished trial; one
//! that is broken in any other way is refused and left as it is, and so are bytes that no run of this program wrote. The same
//! holds of a compressed journal, where a frame is what a line is there.

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
        Record, compressed,
        journal::{Holds, Journal, JournalError, Resumed, parse, same_result},
    },
    search::{Job, Progress, RunError, Session, Settings, Spec, keep},
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
    /// Whether the journal is compressed.
    #[serde(default)]
    pub compressed: bool,
}

impl<'a> Arbitrary<'a> for Torn {
    /// Half of the cuts are at or beside the end of a line, half of the journals only cut.
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let compressed = u.ratio(1, 3)?;
        let left = if u.arbitrary()? {
            let end = with_run(|run| {
                let whole = if compressed { &run.compressed } else { &run.plain };
                // Of a line the place of its newline, of a frame what follows it.
                let ends: Vec<u16> = whole.ends.iter().map(|&(end, _)| end as u16).collect();
                u.choose(&ends).copied()
            })?;
            (end + u.int_in_range(0..=2)?).saturating_sub(1 + u16::from(!compressed))
        } else {
            u.arbitrary()?
        };
        let written = if u.arbitrary()? { u.arbitrary()? } else { Vec::new() };
        let (mut left, mut appended) = (left, Vec::new());
        if u.ratio(1, 3)? {
            appended = u.choose(&STRANGERS)?.to_vec();
            appended.extend(u.arbitrary::<Vec<u8>>()?);
            // Half of them are files of their own.
            left = if u.arbitrary()? { 0 } else { left };
        }
        Ok(Self { left, written, appended, compressed })
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
        "cut within a frame",
        "cut between frames",
        "compressed and refused",
    ];
    const ENTROPY: usize = 48;

    fn check(&self, reached: &mut Reached) -> LawResult {
        with_run(|run| run.torn(self, reached))
    }
}

/// The bytes of the small run's journal, as it is and compressed.
pub fn lengths() -> [usize; 2] {
    with_run(|run| [run.plain.bytes.len(), run.compressed.bytes.len()])
}

/// A journal, with the places up to which so many records are whole.
#[derive(Default)]
struct Whole {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
    path: PathBuf,
}

/// A run of three trials on a model so small that running them again takes no time.
struct Run {
    subject: Subject,
    prompts: Vec<Prompt>,
    settings: Settings,
    jobs: Vec<Job>,
    records: Vec<Record>,
    plain: Whole,
    compressed: Whole,
}

impl Drop for Whole {
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
            jobs: Job::all(&edits, 1).collect(),
            records: Vec::new(),
            plain: Whole::default(),
            compressed: Whole::default(),
        };
        let mut session = run.session();
        let mut records = Vec::new();
        session.begin(run.spec(), &mut |_| Ok(())).expect("nothing is in its way");
        session.run(run.jobs.clone(), &mut keep(&mut records)).expect("trials");
        drop(session);
        let line = |record: &Record| serde_json::to_string(record).expect("a record") + "\n";
        run.plain.path = std::env::temp_dir().join(&name);
        run.compressed.path = std::env::temp_dir().join(name + ".zst");
        run.plain.ends.push((0, 0));
        for (record, count) in records.iter().zip(1..) {
            run.plain.bytes.extend(line(record).into_bytes());
            run.plain.ends.push((run.plain.bytes.len(), count));
        }
        run.compressed.bytes = compressed::title(&records[0].run.id);
        run.compressed.ends = vec![(0, 0), (run.compressed.bytes.len(), 0)];
        // The second hand-over has two records.
        for (first, count) in [(0, 1), (1, 2)] {
            let lines: String = records[first..first + count].iter().map(line).collect();
            run.compressed.bytes.extend(compressed::frame(lines.as_bytes()));
            run.compressed.ends.push((run.compressed.bytes.len(), first + count));
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
        let whole = if torn.compressed { &self.compressed } else { &self.plain };
        let left = usize::from(torn.left) % (whole.bytes.len() + 1);
        let mut bytes = whole.bytes[..left].to_vec();
        for &(at, byte) in torn.written.iter().filter(|_| left > 0) {
            bytes[usize::from(at) % left] = byte;
        }
        bytes.extend(&torn.appended);
        let own = whole.bytes.starts_with(&bytes);
        let last = bytes.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let foreign = if torn.compressed && (left > 0 || compressed::is_ours(&bytes)) {
            false
        } else {
            let begins = last.iter().zip(BEGINS).all(|(a, b)| a == b);
            !begins || (left == 0 && bytes.trim_ascii().is_empty() && !bytes.is_empty())
        };
        let read = || fs::read(&whole.path).expect("a file for temporary data can be read");
        fs::write(&whole.path, &bytes).expect("a file for temporary data can be written");
        let mut session = self.session();
        let (mut resumed, mut finished) = (None, Vec::new());
        let begun = session.begin(self.spec(), &mut |progress| match progress {
            Progress::Begins(mut beginning) => {
                let mut journal = Journal::open(&whole.path, Holds::Records)?;
                let Resumed { trials, cut, records } = journal.resume(&beginning.expectation)?;
                beginning.resume(records);
                resumed = Some((journal, trials, cut));
                Ok(())
            }
            other => keep(&mut finished)(other),
        });
        let on_disk = read();
        let (mut journal, trials, cut) = match begun {
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
                        | JournalError::Compressed(_)
                        | JournalError::End { .. }
                );
                // A frame that is damaged is found where the file is read.
                let damaged = torn.compressed && matches!(error, JournalError::Io { .. });
                claim!(LAW, named || damaged, BROKEN, "{error}");
                reached.one(match (torn.compressed, torn.appended.is_empty()) {
                    (true, _) => "compressed and refused",
                    (false, true) => "broken and refused",
                    (false, false) => "foreign and refused",
                });
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        claim!(LAW, finished.len() == trials, CUT, "{trials} trials are finished, {} are handed over", finished.len());
        // Blank space behind whole lines is no loss.
        let blank = !finished.is_empty() && last.trim_ascii().is_empty();
        claim!(LAW, !foreign || blank, FOREIGN, "{:?} is taken for a record", String::from_utf8_lossy(last));
        let kept = bytes.len() - cut as usize;
        claim!(LAW, on_disk.starts_with(&bytes[..kept]), CUT, "cut at {left}, more than {cut} bytes are taken off");
        // What is read again is what was taken: whole lines and nothing else.
        let again = parse(&on_disk, &whole.path).expect("what was resumed is whole");
        claim!(LAW, again.cut == 0 && !again.unended, CUT, "cut at {left}, {} bytes are left over", again.cut);
        if !own {
            // Another byte may have made another number of a time, or a model of another name.
            return Ok(());
        }
        let left = bytes.len();
        let at = |end: &&(usize, usize)| end.0 <= left;
        let &(end, ends) = whole.ends.iter().rev().find(at).expect("nothing is whole in any case");
        let unended = !torn.compressed && left < whole.bytes.len() && whole.bytes[left] == b'\n';
        claim!(
            LAW,
            finished.len() == ends + usize::from(unended) && finished == self.records[..finished.len()],
            CUT,
            "cut at {left}, {} of {ends} finished trials are known",
            finished.len()
        );
        let (mut records, mut new) = (finished, Vec::new());
        session.run(self.jobs.clone(), &mut keep(&mut new)).expect("trials");
        for record in &new {
            let mut line = serde_json::to_vec(record).expect("a record");
            line.push(b'\n');
            journal.append(&line).expect("a file that can be written");
        }
        journal.hand_over().expect("a file that can be written");
        records.extend(new);
        let same = |found: &[Record]| {
            found.len() == self.records.len() && found.iter().zip(&self.records).all(|(a, b)| same_result(a, b))
        };
        claim!(LAW, same(&records), CUT, "cut at {left}, the run gives other records");
        let whole: Vec<Record> =
            parse(&read(), &whole.path).expect("a journal").records.into_iter().map(|(_, record)| record).collect();
        claim!(LAW, same(&whole), CUT, "cut at {left}, the journal holds other records");
        if torn.compressed {
            reached.one(if left > end { "cut within a frame" } else { "cut between frames" });
            return Ok(());
        }
        let within = !unended && left > 0 && bytes.last() != Some(&b'\n');
        reached.one_if(within, "cut within a record");
        reached.one_if(!within && !unended, "cut between records");
        reached.one_if(unended, "only the newline missing");
        Ok(())
    }
}

impl Torn {
    /// The cut that leaves `left` bytes, and nothing else.
    pub const fn cut(left: u16, compressed: bool) -> Self {
        Self { left, written: Vec::new(), appended: Vec::new(), compressed }
    }
}
