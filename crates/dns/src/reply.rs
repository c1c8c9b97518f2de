//! A message that fits: what it need not say goes first, then answers from the end on, and that is told by the bit TC.

use hickory_proto::op::Message;

/// The most that a connection carries in one message.
pub const MOST: usize = u16::MAX as usize;

/// The message in at most `limit` bytes; `None`: even the question does not fit, or it cannot be written.
pub fn fit(message: &Message, limit: usize) -> Option<Vec<u8>> {
    let whole = encode(message, message.answers.len(), true, limit);
    if whole.is_some() {
        return whole;
    }
    let answers = encode(message, message.answers.len(), false, limit);
    if answers.is_some() {
        return answers;
    }
    // As many answers as fit: more of them are never shorter.
    let (mut fits, mut too_many) = (0, message.answers.len());
    while fits + 1 < too_many {
        let middle = fits.midpoint(too_many);
        match encode(message, middle, false, limit) {
            Some(_) => fits = middle,
            None => too_many = middle,
        }
    }
    encode(message, fits, false, limit)
}

fn encode(message: &Message, answers: usize, with_rest: bool, limit: usize) -> Option<Vec<u8>> {
    let mut part = message.clone();
    if !with_rest {
        part.additionals.clear();
    }
    if answers < part.answers.len() {
        part.answers.truncate(answers);
        part.authorities.clear();
        part.metadata.truncation = true;
    }
    let bytes = part.to_vec().ok()?;
    // Beyond what a message can have, writing it ends in the middle, and says so.
    let is_whole = bytes.get(2).is_some_and(|flags| (flags & 2 != 0) == part.truncation);
    (bytes.len() <= limit && is_whole).then_some(bytes)
}
