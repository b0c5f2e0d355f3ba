//! Statements that the log has as text: their words, and which of them begin and end transactions. Pure.
//!
//! Invariant: texts, comments and the case of letters do not matter; what hides in a comment for the server to run (`/*! … */`)
//! does.

/// A word or sign of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Not quoted; in lower case, and as it was written.
    Plain(String, String),
    /// In backticks or double quotes.
    Quoted(String),
    /// A text, a number: what it says does not matter.
    Value,
    Sign(char),
}

impl Word {
    /// The word in lower case, if it may be a keyword.
    pub fn keyword(&self) -> &str {
        match self {
            Self::Plain(word, _) => word,
            _ => "",
        }
    }

    /// The word as a name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Plain(_, name) | Self::Quoted(name) => Some(name),
            Self::Value | Self::Sign(_) => None,
        }
    }
}

/// The words of a statement.
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            _ if first.is_whitespace() => &rest[first.len_utf8()..],
            '#' => after(rest, "\n"),
            '-' if rest.starts_with("--") => after(rest, "\n"),
            '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                rest[2..].trim_start_matches(['M', '!']).trim_start_matches(|c: char| c.is_ascii_digit())
            }
            '/' if rest.starts_with("/*") => after(rest, "*/"),
            '*' if rest.starts_with("*/") => &rest[2..],
            '\'' | '"' | '`' => {
                let (content, end) = quoted(rest, first);
                words.push(if first == '\'' { Word::Value } else { Word::Quoted(content) });
                end
            }
            _ if is_word(first) => {
                let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                let word = &rest[..end];
                words.push(if first.is_ascii_digit() && word.chars().all(|c| c.is_ascii_digit()) {
                    Word::Value
                } else {
                    Word::Plain(word.to_lowercase(), word.to_owned())
                });
                &rest[end..]
            }
            _ => {
                words.push(Word::Sign(first));
                &rest[first.len_utf8()..]
            }
        };
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '@'
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// What stands between quotes, doubled ones and escapes read, and what follows.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            content.extend(chars.next().map(|(_, escaped)| escaped));
        } else if c != quote {
            content.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            content.push(quote);
            chars.next();
        } else {
            return (content, &text[at + c.len_utf8()..]);
        }
    }
    (content, "")
}

/// What a statement does to the transaction that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Begin,
    Commit,
    /// Of the whole transaction, or back to a savepoint: rows that the log has already were undone.
    Rollback,
    /// Begins one whose end the log has elsewhere.
    XaBegin,
    /// Ends or concludes such a one.
    XaEnd,
    /// Nothing.
    Within,
    /// A statement that is a transaction of its own.
    Alone,
}

/// MariaDB may set variables for one statement before it: `set statement a = b for …`.
pub fn without_settings(words: &[Word]) -> &[Word] {
    let is = |index: usize, keyword: &str| words.get(index).is_some_and(|word| word.keyword() == keyword);
    match words.iter().position(|word| word.keyword() == "for") {
        Some(last) if is(0, "set") && is(1, "statement") => &words[last + 1..],
        _ => words,
    }
}

pub fn control(words: &[Word]) -> Control {
    let keyword = |index: usize| words.get(index).map_or("", Word::keyword);
    match keyword(0) {
        "begin" => Control::Begin,
        "start" if keyword(1) == "transaction" => Control::Begin,
        "commit" => Control::Commit,
        "rollback" => Control::Rollback,
        "savepoint" | "release" => Control::Within,
        "xa" if matches!(keyword(1), "start" | "begin") => Control::XaBegin,
        "xa" => Control::XaEnd,
        "insert" | "update" | "delete" | "replace" | "load" | "with" | "set" => Control::Within,
        _ => Control::Alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_found_between_comments_quotes_and_signs() {
        let text =
            "/* a */ ALTER/*!40000 TABLE */ `sh``op`.\"orders\" -- b\n add Note varchar(10) DEFAULT 'it''s \\' x' # c";
        let found = words(text);
        let shown: Vec<&str> = found.iter().map(|word| word.name().unwrap_or("?")).collect();
        assert_eq!(
            shown,
            ["ALTER", "TABLE", "sh`op", "?", "orders", "add", "Note", "varchar", "?", "?", "?", "DEFAULT", "?"]
        );
        assert_eq!(found[0].keyword(), "alter");
    }

    #[test]
    fn transactions_are_told_from_other_statements() {
        for (text, expected) in [
            ("BEGIN", Control::Begin),
            ("/* x */ commit", Control::Commit),
            ("ROLLBACK TO `a`", Control::Rollback),
            ("XA START X'61',X'',1", Control::XaBegin),
            ("XA COMMIT X'61'", Control::XaEnd),
            ("truncate orders", Control::Alone),
            ("SAVEPOINT a", Control::Within),
            ("set statement max_statement_time = 1 for drop table a", Control::Alone),
        ] {
            assert_eq!(control(without_settings(&words(text))), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_never_ends(text in "[a-z'\"`/*!#\\\\ \n-]{0,40}") {
            prop_assert!(words(&text).len() <= text.len());
        }
    }
}
