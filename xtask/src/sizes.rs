//! Files and functions stay small enough to read in one go.

use crate::finding::Finding;
use crate::house::House;
use crate::source::Source;

/// Lines of a file that are not tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a file that is all tests.
const TEST_FILE_LINES_MAX: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Every file and function over its limit.
pub(crate) fn check(house: &House) -> Vec<Finding> {
    house.sources.iter().flat_map(check_source).collect()
}

fn check_source(source: &Source) -> Vec<Finding> {
    let (lines, lines_max) = match source.is_test() {
        true => (source.text.lines().count(), TEST_FILE_LINES_MAX),
        false => (source.production_lines(), FILE_LINES_MAX),
    };
    let mut found = Vec::new();
    if lines > lines_max {
        let advice = format!("{lines} lines, at most {lines_max}: one idea a file");
        let finding = Finding::new(&source.path, 0, "file-size", &source.path, advice);
        found.push(Finding {
            size: Some(lines),
            ..finding
        });
    }
    for function in source
        .functions()
        .into_iter()
        .filter(|f| f.lines > FUNCTION_LINES_MAX)
    {
        let advice = format!(
            "{} lines, at most {FUNCTION_LINES_MAX}: name its parts",
            function.lines
        );
        let finding = Finding::new(
            &source.path,
            function.line,
            "function-size",
            function.name,
            advice,
        );
        found.push(Finding {
            size: Some(function.lines),
            ..finding
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let text = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(600));
        let found = check_source(&Source::new("stdx/src/x.rs".to_owned(), text));
        let rules: Vec<_> = found.iter().map(|f| (f.rule, f.size)).collect();
        assert_eq!(rules, [("file-size", Some(602)), ("function-size", Some(602))]);
    }
}
