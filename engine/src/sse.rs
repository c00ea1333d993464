//! Server-sent events, as they come in pieces from the network.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its name; `message` when it has none.
    pub(crate) event: String,
    /// Its data.
    pub(crate) data: String,
}

/// Larger than any state: what is larger is no event of an agent.
const MOST_BYTES: usize = 64 << 20;

/// Puts pieces together.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    event: String,
    data: String,
    has_data: bool,
}

/// It never ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Parser {
    /// The events that end in `bytes`.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, TooLarge> {
        let mut frames = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > MOST_BYTES {
                return Err(TooLarge);
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                frames.extend(self.take(&String::from_utf8_lossy(&line)));
            }
        }
        Ok(frames)
    }

    fn take(&mut self, line: &str) -> Option<Frame> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            let event = if event.is_empty() { "message".into() } else { event };
            return std::mem::take(&mut self.has_data).then_some(Frame { event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = value.into(),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments, ids and retry times are of no use here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, data: &str) -> Frame {
        Frame { event: event.into(), data: data.into() }
    }

    #[test]
    fn events_are_the_same_in_pieces_of_any_size() {
        let text = ": hello\nevent: state\nid: 7\ndata: {\"a\":\ndata: \"\u{e9}\"}\n\ndata: x\r\n\r\n\nevent: lost\n\n";
        let expected = [frame("state", "{\"a\":\n\"\u{e9}\"}"), frame("message", "x")];
        for size in [1, 2, 3, 7, 1_000] {
            let mut parser = Parser::default();
            let feed = |piece: &[u8]| parser.feed(piece).expect("small");
            let found: Vec<Frame> = text.as_bytes().chunks(size).flat_map(feed).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; MOST_BYTES / 2];
        assert_eq!(parser.feed(&piece), Ok(Vec::new()));
        assert_eq!(parser.feed(&piece), Ok(Vec::new()));
        assert_eq!(parser.feed(b"x"), Err(TooLarge));
    }
}
