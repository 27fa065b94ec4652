//! A Rust file, lexed just enough: which characters are code, which lines are tests, where functions end.

/// A Rust file.
pub(crate) struct Source {
    /// Path from the root of the workspace.
    pub(crate) path: String,
    /// As written.
    pub(crate) text: String,
    /// The same lines with comments and the insides of literals blanked out.
    code: String,
    /// For each line, whether it belongs to a test.
    test_lines: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

impl Source {
    /// Lexes a file.
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blanked(&text);
        let all = is_test_file(&path);
        let mut test_lines = vec![all; text.lines().count()];
        for (from, to) in test_items(&code) {
            test_lines[from..=to].fill(true);
        }
        Source {
            path,
            text,
            code,
            test_lines,
        }
    }

    /// True if all of it is test code.
    pub(crate) fn is_test(&self) -> bool {
        is_test_file(&self.path)
    }

    /// How many lines are not tests.
    pub(crate) fn production_lines(&self) -> usize {
        self.test_lines.iter().filter(|test| !**test).count()
    }

    /// The lines that are not tests, numbered from 1, without comments and literals.
    pub(crate) fn production_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().zip(&self.test_lines).enumerate();
        lines
            .filter(|(_, (_, test))| !**test)
            .map(|(i, (line, _))| (i + 1, line))
    }

    /// The functions that are not tests.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let name: String = self.code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
            let starts_word = at == 0 || !is_word(char::from(code[at - 1]));
            if let Some(end) = body_end(code, at)
                && starts_word
                && !name.is_empty()
            {
                let (first, last) = (line_of(&self.code, at), line_of(&self.code, end));
                if !self.test_lines[first] {
                    found.push(Function {
                        name,
                        line: first + 1,
                        lines: last - first + 1,
                    });
                }
            }
        }
        found
    }
}

/// True for letters, digits and `_`.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_test_file(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop();
    // The crate `tests` is a harness: its `src` is held to the rules of production code.
    let folders = if parts.first() == Some(&"tests") {
        &parts[1..]
    } else {
        &parts[..]
    };
    name == Some("tests.rs")
        || folders
            .iter()
            .any(|folder| ["tests", "benches", "examples"].contains(folder))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|b| *b == b'\n').count()
}

/// First and last line (from 0) of every item under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let starts = code
        .match_indices("#[cfg(test)]")
        .map(|(at, text)| (at, at + text.len()));
    let ends = |from| body_end(code.as_bytes(), from).or_else(|| code[from..].find(';').map(|n| from + n));
    starts
        .filter_map(|(at, from)| Some((line_of(code, at), line_of(code, ends(from)?))))
        .collect()
}

/// Where the first block after `from` closes. `None` if a `;` outside brackets comes before it.
fn body_end(code: &[u8], from: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (i, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(i);
                }
            }
            b';' if brackets == 0 && braces == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The text with comments, and what is inside string and character literals, replaced by spaces.
/// Newlines stay. Every character becomes one byte, so that offsets are those of `blanked`'s result only.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let (end, is_code) = token(&chars, i);
        for c in &chars[i..end] {
            code.push(match c {
                '\n' => '\n',
                c if is_code && c.is_ascii() => *c,
                _ => ' ',
            });
        }
        i = end;
    }
    code
}

/// The end of what starts at `i`, and whether it is code.
fn token(chars: &[char], i: usize) -> (usize, bool) {
    let next = chars.get(i + 1).copied();
    let inside_word = i > 0 && is_word(chars[i - 1]);
    match (chars[i], next) {
        ('/', Some('/')) => (position(chars, i, |c| c == '\n'), false),
        ('/', Some('*')) => (block_comment_end(chars, i), false),
        ('"', _) => (string_end(chars, i + 1), false),
        ('r', Some('"' | '#')) if !inside_word || chars[i - 1] == 'b' => match raw_string_end(chars, i + 1) {
            Some(end) => (end, false),
            None => (i + 1, true),
        },
        ('\'', Some('\\')) => (position(chars, i + 3, |c| c == '\'') + 1, false),
        ('\'', Some(_)) if chars.get(i + 2) == Some(&'\'') => (i + 3, false),
        _ => (i + 1, true),
    }
}

fn position(chars: &[char], from: usize, is: impl Fn(char) -> bool) -> usize {
    (from..chars.len())
        .find(|i| is(chars[*i]))
        .unwrap_or(chars.len().saturating_sub(1))
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut i = from;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => {
                depth += 1;
                i += 2;
            }
            ('*', '/') => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
    if chars.get(from + hashes) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| chars[*i] == '"' && chars[*i + 1..].iter().take(hashes).all(|c| *c == '#');
    let end = (from + hashes + 1..chars.len().saturating_sub(hashes)).find(closes)?;
    Some(end + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("master/src/x.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" i r#\"j \" k\"# l 'm' n '\\'' o <'p> q";
        let code: String = blanked(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, "a f i l n o <'p> q");
    }

    #[test]
    fn tests_are_no_production_lines() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n#[cfg(test)]\nmod d;\n";
        let source = source(text);
        assert_eq!(source.production_lines(), 2);
        let names: Vec<String> = source.functions().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn a_function_ends_with_its_brace() {
        let text = "trait T { fn no(&self) -> [u8; 2]; }\npub fn yes<const N: usize>(a: [u8; N]) -> u8\nwhere\n{\n    if a {\n    }\n    '}'\n}\n";
        assert_eq!(
            source(text).functions(),
            [Function {
                name: "yes".to_owned(),
                line: 2,
                lines: 7
            }]
        );
    }

    #[test]
    fn the_harness_is_production_code_and_tests_are_not() {
        for (path, test) in [
            ("tests/src/suites/disk.rs", false),
            ("tests/tests/e2e/main.rs", true),
            ("stdx/src/disk/mem/tests.rs", true),
            ("client/examples/wordcount.rs", true),
            ("client/tests/docs.rs", true),
            ("client/src/client.rs", false),
        ] {
            assert_eq!(is_test_file(path), test, "{path}");
        }
    }
}
