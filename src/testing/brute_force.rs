//! Certificates against trying everything: an oracle for a property, a fuzz target and regressions.
//!
//! A [`SmallHead`] has so few codes that reach its hidden state that all sets of flips can be tried. Its numbers are
//! small multiples of powers of two, so that every logit is exact in `f32`, `f64` and any order of summation, equal
//! logits are common, and nothing can be explained away by rounding. [`SmallHead::from_bytes`] makes one of any bytes,
//! and [`SmallHead::check`] compares what is certified with what trying finds. It shares no code with the certificates
//! but the head's layout.
//!
//! ```
//! use lm_headroom::testing::brute_force::SmallHead;
//!
//! let checked = SmallHead::from_bytes(b"any bytes").check().expect("certificates hold");
//! assert!(checked.tried > 0);
//! ```

use crate::{
    certificate::{Flip, Position, Rows, Within, census, least_flips, least_flips_within, scale_census, toward},
    edit::Edit,
    kernels::{Activations, Kernel, Pass, Product, Rounding, multiply, scalar},
    quant::{FloatType, Format, Layout, MatrixBuf, MatrixRef, Tensor, WeightsRef},
    team::Team,
    testing::heads::encode,
};

/// Sets of flips that are tried for each claim, at most.
const TRIES: u64 = 120_000;
/// Columns, in two groups.
const COLS: usize = 64;
const GROUP: usize = 32;

/// A head and a hidden state that is zero but for a few columns.
#[derive(Clone, Debug)]
pub struct SmallHead {
    /// How codes are stored.
    pub format: Format,
    /// Type of scales and biases.
    pub scale_type: FloatType,
    /// `[rows][64]`.
    pub codes: Vec<Vec<u32>>,
    /// `[rows][2]`.
    pub scales: Vec<[f32; 2]>,
    /// `[rows][2]`.
    pub biases: Vec<[f32; 2]>,
    /// Columns in which the hidden state is not zero, and its values there.
    pub hidden: Vec<(usize, f32)>,
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The least flips that were certified and found; `None` where no flips change the token.
    pub least: Option<usize>,
    /// Whether all sets of fewer flips were tried, and not only those of the first sizes.
    pub exhausted: bool,
    /// Sets of flips that were tried, for all claims.
    pub tried: u64,
    /// Critical single flips.
    pub critical: usize,
}

/// What trying found.
enum Found {
    /// So many flips do it, and no fewer.
    Least(usize),
    /// No set of so many flips, or fewer, does it.
    NotUpTo(usize),
}

impl SmallHead {
    /// A head of any bytes; those that are missing count as zero.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut at = 0;
        let mut next = || {
            let byte = bytes.get(at).copied().unwrap_or(0);
            at += 1;
            usize::from(byte)
        };
        let first = next();
        let bits = if first & 1 == 0 { 4 } else { 8 };
        let format = Format::affine(bits, GROUP).expect("a format");
        let mask = format.width().mask();
        let scale_type = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F16][first >> 1 & 3];
        let rows = 2 + (first >> 3) % 3;
        let used = if bits == 4 { 2 + (first >> 5) % 3 } else { 1 + (first >> 5) % 2 };
        let mut hidden: Vec<(usize, f32)> = Vec::new();
        for _ in 0..used {
            let (column, value) = (next() % COLS, next());
            let sign = if value & 1 == 0 { 1.0 } else { -1.0 };
            let free = (0..COLS).map(|i| (column + i) % COLS).find(|c| hidden.iter().all(|(used, _)| used != c));
            hidden.push((free.expect("few are used"), sign * (1 + value / 2 % 8) as f32 / 2.0));
        }
        let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        // Codes of 8 bits reach sixteen times as far.
        let step = if bits == 4 { 16.0 } else { 256.0 };
        for _ in 0..rows {
            let mut row = vec![0; COLS];
            for &(column, _) in &hidden {
                row[column] = next() as u32 & mask;
            }
            // The other columns do not matter, which is a claim of its own.
            (0..COLS).filter(|c| hidden.iter().all(|(used, _)| used != c)).for_each(|c| row[c] = c as u32 & mask);
            codes.push(row);
            scales.push([next(), next()].map(|byte| (byte as f32 - 96.0).trunc() / 16.0 / step * 2.0));
            biases.push([next(), next()].map(|byte| (byte as f32 - 128.0) / 16.0));
        }
        let mut head = Self { format, scale_type, codes, scales, biases, hidden };
        // Left to chance, a token that takes several flips is rare.
        let aim = next();
        if aim & 3 != 0 {
            head.aim([1, 2, 3, 4, 5, 6, 6, 7][aim / 4 % 8]);
        }
        head
    }

    /// Moves row 0 ahead of row 1 by a little less than their `flips` largest gains, as far as a bias can.
    fn aim(&mut self, flips: usize) {
        let wide = |values: &[[f32; 2]]| values.iter().map(|row| row.map(f64::from)).collect::<Vec<_>>();
        let logits = self.logits(&self.codes, &wide(&self.scales), &wide(&self.biases));
        let mut gains: Vec<f64> = Vec::new();
        for Flip { row, column, bit } in self.flips().into_iter().filter(|flip| flip.row < 2) {
            let (row, column) = (row as usize, column as usize);
            let up = f64::from(self.scales[row][column / GROUP]) * self.hidden_at(column) * f64::from(1_u32 << bit);
            let set = self.codes[row][column] >> bit & 1 == 1;
            let delta = if set { -up } else { up };
            gains.push(if row == 0 { -delta } else { delta });
        }
        gains.retain(|gain| *gain > 0.0);
        gains.sort_by(|a, b| b.total_cmp(a));
        let Some(last) = gains.get(flips - 1) else { return };
        let ahead = gains[..flips].iter().sum::<f64>() - last / 2.0;
        let group = self.hidden[0].0 / GROUP;
        let sum: f64 = (group * GROUP..(group + 1) * GROUP).map(|column| self.hidden_at(column)).sum();
        if sum != 0.0 {
            let bias = f64::from(self.biases[0][group]) + (ahead - logits[0] + logits[1]) / sum;
            self.biases[0][group] = ((bias * 16.0).round() / 16.0).clamp(-15.0, 15.0) as f32;
        }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.codes.len(), COLS, self.format, self.scale_type).expect("two groups")
    }

    fn matrix(&self) -> MatrixBuf {
        let floats = |values: &[[f32; 2]]| {
            values.as_flattened().iter().flat_map(|&value| encode(self.scale_type, value)).collect()
        };
        let words = self.codes.iter().flat_map(|row| self.format.width().pack(row)).collect();
        MatrixBuf::new(self.layout(), words, floats(&self.scales), Some(floats(&self.biases))).expect("whole rows")
    }

    /// The flips that can matter.
    fn flips(&self) -> Vec<Flip> {
        let mut flips = Vec::new();
        for row in 0..self.codes.len() {
            for &(column, _) in &self.hidden {
                let flip = |bit| Flip { row: row as u32, column: column as u32, bit: bit as u8 };
                flips.extend((0..self.format.width().bits()).map(flip));
            }
        }
        flips
    }

    fn hidden_at(&self, column: usize) -> f64 {
        self.hidden.iter().find(|(used, _)| *used == column).map_or(0.0, |&(_, h)| f64::from(h))
    }

    /// Logits under other scales and biases; all exact.
    fn logits(&self, codes: &[Vec<u32>], scales: &[[f64; 2]], biases: &[[f64; 2]]) -> Vec<f64> {
        let logit = |(row, codes): (usize, &Vec<u32>)| {
            (0..2)
                .map(|group| {
                    let columns = group * GROUP..(group + 1) * GROUP;
                    let q: f64 = columns.clone().map(|c| f64::from(codes[c]) * self.hidden_at(c)).sum();
                    let h: f64 = columns.map(|c| self.hidden_at(c)).sum();
                    scales[row][group] * q + biases[row][group] * h
                })
                .sum()
        };
        codes.iter().enumerate().map(logit).collect()
    }

    /// Tries all sets of flips out of `among`, the small ones first, until `goal` holds of the logits.
    fn least(&self, among: &[Flip], goal: &dyn Fn(&[f64]) -> bool, tried: &mut u64) -> Found {
        let wide = |values: &[[f32; 2]]| values.iter().map(|row| row.map(f64::from)).collect::<Vec<_>>();
        let logits = self.logits(&self.codes, &wide(&self.scales), &wide(&self.biases));
        let mut sets = Sets { head: self, among, goal, codes: self.codes.clone(), logits, tried: 0 };
        let mut size = 0;
        let found = loop {
            if sets.any(0, size) {
                break Found::Least(size);
            }
            // The next size is begun only if it can be finished.
            let next = (0..=size).fold(1_u64, |n, i| n * (among.len().saturating_sub(i)) as u64 / (i as u64 + 1));
            if size == among.len() || sets.tried + next > TRIES {
                break Found::NotUpTo(size);
            }
            size += 1;
        };
        *tried += sets.tried;
        found
    }

    /// Compares every certificate with what trying finds.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self) -> Result<Checked, String> {
        let owned = self.matrix();
        let (matrix, layout) = (owned.view(), *owned.layout());
        let mut hidden = vec![0.0; COLS];
        self.hidden.iter().for_each(|&(column, h)| hidden[column] = h);
        let team = Team::new(1);
        let executed = project(&matrix, &hidden, &team);
        let rows = Rows::new(matrix, Rounding::KERNELS, &team);
        let position = Position::new(&rows, &hidden, &executed).map_err(|error| error.to_string())?;
        let token = position.token();
        let differ = |what: &str, certified: &dyn std::fmt::Debug, tried: &dyn std::fmt::Debug| {
            format!("{what}: certified {certified:?}, tried {tried:?}; {self:?}")
        };

        let mut checked = Checked::default();
        let loses = move |logits: &[f64]| top(logits) != token;
        let compare = |what: &str, certified: Option<usize>, found: &Found| match (certified, found) {
            (Some(least), Found::Least(found)) if least == *found => Ok(true),
            (Some(least), Found::NotUpTo(size)) if least > *size => Ok(least == size + 1),
            (None, Found::NotUpTo(_)) => Ok(true),
            (_, Found::Least(found)) => Err(differ(what, &certified, found)),
            (_, Found::NotUpTo(size)) => Err(differ(what, &certified, &format!("none of up to {size}"))),
        };
        let all = self.flips();

        // Least flips, anywhere.
        let least = least_flips(&position, &[]);
        checked.least = least.as_ref().map(|least| least.flips);
        let found = self.least(&all, &loses, &mut checked.tried);
        checked.exhausted = compare("least flips", checked.least, &found)?;
        if let Some(least) = &least {
            let after = self.after(&matrix, &least.witness, &hidden, &team)?;
            if after == token || least.witness.len() != least.flips {
                return Err(differ("witness", &least, &after));
            }
        }

        // Within one word, row or line, over all units.
        for within in [Within::Word, Within::Row, Within::Line] {
            let unit = |flip: &Flip| {
                let of_row = layout.width().word_of(flip.column as usize, usize::from(flip.bit));
                let word = flip.row as usize * layout.words_per_row() + of_row;
                match within {
                    Within::Word => word,
                    Within::Row => flip.row as usize,
                    Within::Line => word / 16,
                }
            };
            let mut units: Vec<usize> = all.iter().map(unit).collect();
            units.sort_unstable();
            units.dedup();
            let certified = least_flips_within(&position, within);
            // The least that was found, and up to where every unit was tried.
            let (mut least, mut up_to) = (None, usize::MAX);
            for one in units {
                let among: Vec<Flip> = all.iter().filter(|flip| unit(flip) == one).copied().collect();
                match self.least(&among, &loses, &mut checked.tried) {
                    Found::Least(found) => least = Some(least.map_or(found, |least: usize| least.min(found))),
                    Found::NotUpTo(size) if size < among.len() => up_to = up_to.min(size),
                    Found::NotUpTo(_) => {}
                }
            }
            let best = match least {
                Some(least) if least <= up_to.saturating_add(1) => Found::Least(least),
                _ => Found::NotUpTo(up_to),
            };
            compare(within.name(), certified.as_ref().map(|least| least.flips), &best)?;
            if let Some(least) = certified {
                let after = self.after(&matrix, &least.witness, &hidden, &team)?;
                let units: std::collections::BTreeSet<usize> = least.witness.iter().map(unit).collect();
                if after == token || units.len() > 1 {
                    return Err(differ(&format!("witness within a {}", within.name()), &least, &after));
                }
            }
        }

        // Toward each row.
        for row in 0..layout.rows() {
            let certified = toward(&position, row);
            let wins = move |logits: &[f64]| top(logits) == row;
            let found = self.least(&all, &wins, &mut checked.tried);
            compare("toward", certified.as_ref().map(|toward| toward.flips), &found)?;
            if let Some(toward) = certified {
                let after = self.after(&matrix, &toward.witness, &hidden, &team)?;
                if after != row || toward.witness.len() != toward.flips {
                    return Err(differ("witness toward", &toward, &after));
                }
            }
        }

        // The census, flip by flip.
        let mut critical = Vec::new();
        for flip in &all {
            if self.after(&matrix, &[*flip], &hidden, &team)? != token {
                critical.push(*flip);
            }
        }
        critical.sort_unstable();
        let certified: Vec<Flip> =
            census(std::slice::from_ref(&position), &team)[0].critical().map(|hit| hit.flip).collect();
        checked.critical = critical.len();
        if certified != critical {
            return Err(differ("critical bits", &certified, &critical));
        }

        // Scales and biases, bit by bit.
        let certified = scale_census(std::slice::from_ref(&position), &team);
        for (tensor, certified) in [Tensor::Scales, Tensor::Biases].into_iter().zip(certified) {
            let (mut critical, mut not_finite) = (0, 0);
            for bit in 0..self.scale_type.size() * 8 * 2 * layout.rows() {
                let (element, bit) = (bit / (8 * self.scale_type.size()), bit % (8 * self.scale_type.size()));
                let data = matrix.part(tensor).expect("it has both");
                let size = self.scale_type.size();
                let mut bytes = data[element * size..][..size].to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let value = f64::from(self.scale_type.get(&bytes, 0));
                not_finite += usize::from(!value.is_finite());
                critical +=
                    usize::from(!value.is_finite() || self.top_with(element / 2, element % 2, tensor, value) != token);
            }
            if (certified.critical_bits, certified.nonfinite_bits) != (critical, not_finite) {
                return Err(differ(tensor.name(), &certified, &(critical, not_finite)));
            }
        }
        Ok(checked)
    }

    /// The token after one scale or bias has become `value`, which may be so small or so large that the sum is not
    /// exact any more; the sign of a sum of two numbers is.
    fn top_with(&self, row: usize, group: usize, tensor: Tensor, value: f64) -> usize {
        let wide = |values: &[[f32; 2]]| values.iter().map(|row| row.map(f64::from)).collect::<Vec<_>>();
        let (mut scales, mut biases) = (wide(&self.scales), wide(&self.biases));
        if tensor == Tensor::Scales {
            scales[row][group] = 0.0;
        } else {
            biases[row][group] = 0.0;
        }
        let logits = self.logits(&self.codes, &scales, &biases);
        let columns = group * GROUP..(group + 1) * GROUP;
        let of = |c: usize| if tensor == Tensor::Scales { f64::from(self.codes[row][c]) } else { 1.0 };
        let added = value * columns.map(|c| of(c) * self.hidden_at(c)).sum::<f64>();
        let mut others: Vec<f64> = logits.clone();
        others[row] = f64::NEG_INFINITY;
        let best = top(&others);
        let ahead = (logits[row] - logits[best]) + added;
        if ahead > 0.0 || (ahead == 0.0 && row < best) { row } else { best }
    }

    /// The token after flips, by the kernel.
    fn after(&self, matrix: &MatrixRef<'_>, flips: &[Flip], hidden: &[f32], team: &Team) -> Result<usize, String> {
        let edit: Edit = Flip::edit(flips);
        let plan = edit.plan(matrix).map_err(|error| error.to_string())?;
        let mut logits = project(matrix, hidden, team);
        for (&row, patch) in &plan.rows {
            let mut weights = vec![0.0; COLS];
            scalar::dequantize_row(&patch.view(), 0, 0, &mut weights);
            logits[row] = scalar::dot(&weights, hidden);
        }
        Ok(top(&logits.iter().map(|&logit| f64::from(logit)).collect::<Vec<_>>()))
    }
}

/// The first largest.
fn top(logits: &[f64]) -> usize {
    (1..logits.len()).fold(0, |best, row| if logits[row] > logits[best] { row } else { best })
}

fn project(matrix: &MatrixRef<'_>, hidden: &[f32], team: &Team) -> Vec<f32> {
    let mut out = vec![f32::NAN; matrix.layout().rows()];
    let x = Activations::from_rows(Kernel::SCALAR, hidden.len(), hidden);
    let products = vec![Product { shift: 0, x: &x, out: &mut out }];
    multiply(Kernel::SCALAR, team, &mut [Pass { weights: WeightsRef::Quantized(*matrix), products }]);
    out
}

/// All sets of flips of one size.
struct Sets<'a> {
    head: &'a SmallHead,
    among: &'a [Flip],
    goal: &'a dyn Fn(&[f64]) -> bool,
    codes: Vec<Vec<u32>>,
    logits: Vec<f64>,
    tried: u64,
}

impl Sets<'_> {
    /// Whether the goal holds of some set of `left` flips more, from `first` on.
    fn any(&mut self, first: usize, left: usize) -> bool {
        if left == 0 {
            self.tried += 1;
            return (self.goal)(&self.logits);
        }
        for i in first..=self.among.len() - left {
            self.flip(i);
            let found = self.any(i + 1, left - 1);
            self.flip(i);
            if found {
                return true;
            }
        }
        false
    }

    /// Flips a bit of the codes, and brings its row's logit up to date from what the code now is.
    fn flip(&mut self, i: usize) {
        let Flip { row, column, bit } = self.among[i];
        let (row, column) = (row as usize, column as usize);
        let code = &mut self.codes[row][column];
        let old = f64::from(*code);
        *code ^= 1 << bit;
        let change = f64::from(*code) - old;
        self.logits[row] += f64::from(self.head.scales[row][column / GROUP]) * change * self.head.hidden_at(column);
    }
}
