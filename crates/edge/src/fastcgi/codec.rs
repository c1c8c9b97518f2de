//! FastCGI records as bytes. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const RESPONDER: u16 = 1;
const REQUEST: u16 = 1;
const HEADER: usize = 8;

/// Largest content of one record; a multiple of eight, so that nothing needs padding.
pub const RECORD: usize = 0xfff8;

/// What a record of the answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of the answer.
    Stdout(Bytes),
    /// A piece of what PHP says to the log.
    Stderr(Bytes),
    /// The request is finished.
    End {
        /// PHP's exit status.
        status: u32,
        /// FastCGI's own word; 0: completed.
        protocol: u8,
    },
}

/// The peer does not speak FastCGI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not FastCGI: record of version {version}, type {kind}")]
pub struct Garbled {
    version: u8,
    kind: u8,
}

/// Writes the start of a request: BEGIN_REQUEST and all parameters.
pub fn begin(out: &mut BytesMut, params: &[u8]) {
    record_header(out, BEGIN_REQUEST, 8);
    out.put_u16(RESPONDER);
    out.put_slice(&[0; 6]);
    for part in params.chunks(RECORD) {
        record_header(out, PARAMS, part.len());
        out.put_slice(part);
    }
    record_header(out, PARAMS, 0);
}

/// The header of a STDIN record; a length of 0 ends the body.
pub fn stdin_header(length: usize) -> [u8; HEADER] {
    debug_assert!(length <= RECORD);
    let length = (length as u16).to_be_bytes();
    [VERSION, STDIN, 0, REQUEST as u8, length[0], length[1], 0, 0]
}

/// Writes a piece of the body, in as many records as it needs.
pub fn stdin(out: &mut BytesMut, body: &[u8]) {
    for part in body.chunks(RECORD) {
        out.put_slice(&stdin_header(part.len()));
        out.put_slice(part);
    }
}

fn record_header(out: &mut BytesMut, kind: u8, length: usize) {
    debug_assert!(length <= RECORD);
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16(REQUEST);
    out.put_u16(length as u16);
    out.put_u16(0);
}

/// Takes the next event out of what was read; `None`: more bytes are needed. Content is handed on without copying.
pub fn next(input: &mut BytesMut) -> Result<Option<Event>, Garbled> {
    loop {
        if input.len() < HEADER {
            return Ok(None);
        }
        let (version, kind) = (input[0], input[1]);
        let length = usize::from(u16::from_be_bytes([input[4], input[5]]));
        let padding = usize::from(input[6]);
        if version != VERSION || !matches!(kind, END_REQUEST | STDOUT | STDERR) {
            return Err(Garbled { version, kind });
        }
        if input.len() < HEADER + length + padding {
            return Ok(None);
        }
        input.advance(HEADER);
        let content = input.split_to(length).freeze();
        input.advance(padding);
        match kind {
            END_REQUEST if length >= 5 => {
                let status = u32::from_be_bytes([content[0], content[1], content[2], content[3]]);
                return Ok(Some(Event::End { status, protocol: content[4] }));
            }
            END_REQUEST => return Err(Garbled { version, kind }),
            // Empty records end a stream; END_REQUEST says the same and more.
            _ if length == 0 => {}
            STDOUT => return Ok(Some(Event::Stdout(content))),
            _ => return Ok(Some(Event::Stderr(content))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut out = vec![1, kind, 0, 1];
        out.extend((content.len() as u16).to_be_bytes());
        out.extend([padding as u8, 0]);
        out.extend(content);
        out.extend(vec![0xee; padding]);
        out
    }

    #[test]
    fn an_answer_is_read_the_same_however_it_is_cut() {
        let mut wire = record(6, b"Status: 200\r\n", 3);
        wire.extend(record(7, b"PHP Warning", 5));
        wire.extend(record(6, b"body", 0));
        wire.extend(record(6, b"", 0));
        wire.extend(record(3, &[0, 0, 1, 2, 0, 0, 0, 0], 0));
        for step in [1, 2, 7, 8, 9, 20, 1000] {
            let mut input = BytesMut::new();
            let mut events = Vec::new();
            for part in wire.chunks(step) {
                input.extend_from_slice(part);
                while let Some(event) = next(&mut input).expect("good records") {
                    events.push(event);
                }
            }
            assert_eq!(
                events,
                [
                    Event::Stdout(Bytes::from_static(b"Status: 200\r\n")),
                    Event::Stderr(Bytes::from_static(b"PHP Warning")),
                    Event::Stdout(Bytes::from_static(b"body")),
                    Event::End { status: 0x102, protocol: 0 },
                ],
                "step {step}"
            );
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_not_fastcgi_is_refused_at_once() {
        for wire in
            [&b"HTTP/1.1 200 OK\r\n"[..], &record(1, b"xxxxxxxx", 0), &record(3, b"", 0), &[2; 16]]
        {
            assert!(next(&mut BytesMut::from(wire)).is_err());
        }
    }

    #[test]
    fn a_request_of_any_size_is_cut_into_records() {
        let params = vec![b'p'; RECORD + 1];
        let mut out = BytesMut::new();
        begin(&mut out, &params);
        assert_eq!(out.len(), 16 + 8 + RECORD + 8 + 1 + 8);
        assert_eq!(&out[..16], &[1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&out[16..24], &[1, 4, 0, 1, 0xff, 0xf8, 0, 0]);
        assert_eq!(&out[out.len() - 8..], &[1, 4, 0, 1, 0, 0, 0, 0]);
        let mut out = BytesMut::new();
        stdin(&mut out, &vec![0; 2 * RECORD]);
        assert_eq!(out.len(), 2 * (8 + RECORD));
        assert_eq!(stdin_header(0), [1, 5, 0, 1, 0, 0, 0, 0]);
    }
}
