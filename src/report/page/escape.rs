//! Text of unknown origin, as HTML and SVG can hold it.

use crate::report::terminal::{grouped, is_seen};

/// Text for an attribute or an element.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if is_seen(c) => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Text as HTML, with everything that cannot be seen spelled out as Rust would, and told apart from the same
/// characters standing there; cut where it is too long for a page.
pub(super) fn visible(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (i, c) in text.chars().enumerate() {
        if i == most {
            let left = grouped((text.chars().count() - most) as i64);
            out += &format!("<span class=\"cut\">… {left} more characters</span>");
            break;
        }
        if i == 0 && c == ' ' {
            // Where a line could break, and be left with a quotation mark.
            out += "&nbsp;";
        } else if is_seen(c) {
            out += &escaped(c.encode_utf8(&mut [0; 4]));
        } else {
            out += &format!("<span class=\"esc\">{}</span>", c.escape_debug());
        }
    }
    format!("<bdi>{out}</bdi>")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARACTERS: usize = 600;

    #[test]
    fn what_cannot_be_seen_is_spelled_out_and_marked() {
        assert_eq!(visible("2+2 is 4.", CHARACTERS), "<bdi>2+2 is 4.</bdi>");
        assert_eq!(visible("a\nb", CHARACTERS), "<bdi>a<span class=\"esc\">\\n</span>b</bdi>");
        assert_eq!(visible("a\\nb", CHARACTERS), "<bdi>a\\nb</bdi>");
        for hidden in [
            '\u{0}',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{200b}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert!(!visible(&hidden.to_string(), CHARACTERS).contains(hidden), "{hidden:?}");
            assert!(!escaped(&hidden.to_string()).contains(hidden), "{hidden:?}");
        }
        // Letters of their scripts, combining ones included.
        for text in ["हिन्दी", "שלום", "日本語", "naïve"] {
            assert_eq!(visible(text, CHARACTERS), format!("<bdi>{text}</bdi>"));
        }
    }

    #[test]
    fn markup_is_text() {
        let text = "</script><img src=x onerror='alert(1)'>&\"";
        let expected = "&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;";
        assert_eq!(escaped(text), expected);
        assert_eq!(visible(text, CHARACTERS), format!("<bdi>{expected}</bdi>"));
    }

    #[test]
    fn a_long_text_is_cut_and_says_how_much_is_left() {
        let shown = visible(&"é".repeat(CHARACTERS + 12_345), CHARACTERS);
        assert!(shown.ends_with("<span class=\"cut\">… 12,345 more characters</span></bdi>"), "{shown}");
        assert!(shown.chars().count() < CHARACTERS + 100);
        assert!(!visible(&"é".repeat(CHARACTERS), CHARACTERS).contains("more"));
    }
}
