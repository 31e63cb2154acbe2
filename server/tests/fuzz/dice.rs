//! Changes at random, the same for the same seed.

/// Numbers that a reader of bytes may take for a length, an offset or a count.
const FORGED: [u64; 12] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, (64 << 20) + 1, 0x7fff_ffff, 0xffff_ffff, 1 << 36, i64::MAX as u64, u64::MAX];

/// Random numbers of a seed, by xorshift (Marsaglia, 2003).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// The bytes with up to four changes: one byte, one bit, a part taken out, put in again, or put in from elsewhere, a number
    /// put over what was there, or the end cut off.
    pub(crate) fn changed(&mut self, seed: &[u8], from: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(12)).min(bytes.len());
            match self.below(8) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 if at < end => drop(bytes.drain(at..end)),
                3 if at < end => {
                    let part = bytes[at..end].repeat(1 + self.below(6));
                    bytes.splice(at..at, part);
                }
                4 => {
                    let other = self.one(from);
                    let begin = self.below(other.len() + 1);
                    let part = &other[begin..(begin + self.below(40)).min(other.len())];
                    bytes.splice(at..at, part.iter().copied());
                }
                5 | 6 => {
                    let number = self.one(&FORGED).to_le_bytes();
                    let width = 1 << self.below(4);
                    // Where such numbers stand.
                    let at = at - at % width;
                    if at + width <= bytes.len() {
                        bytes[at..at + width].copy_from_slice(&number[..width]);
                    }
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }

    /// A text with up to four of its words taken out, put in again, exchanged, or put in from another.
    pub(crate) fn reworded(&mut self, seed: &str, from: &[Vec<u8>]) -> String {
        let mut all = words(seed);
        let others = String::from_utf8_lossy(self.one::<Vec<u8>>(from)).into_owned();
        let others = words(&others);
        for _ in 0..=self.below(4) {
            let (at, other) = (self.below(all.len()), self.below(all.len()));
            match self.below(5) {
                0 if all.len() > 1 => drop(all.remove(at)),
                1 if !all.is_empty() => all.insert(at, all[other]),
                2 if !all.is_empty() => all.swap(at, other),
                3 if !all.is_empty() && !others.is_empty() => all[at] = *self.one(&others),
                _ if !others.is_empty() => {
                    let begin = self.below(others.len());
                    let end = (begin + 1 + self.below(8)).min(others.len());
                    all.splice(at..at, others[begin..end].iter().copied());
                }
                _ => {}
            }
        }
        all.concat()
    }
}

/// The words of a text, and all that is between them as single letters.
fn words(text: &str) -> Vec<&str> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut words: Vec<&str> = Vec::new();
    for piece in text.split_inclusive(|letter| !is_word(letter)) {
        let end = piece.char_indices().next_back().filter(|(_, letter)| !is_word(*letter)).map_or(piece.len(), |(at, _)| at);
        let (word, rest) = piece.split_at(end);
        words.extend([word, rest].into_iter().filter(|part| !part.is_empty()));
    }
    words
}
