//! Several files in one text: prose, then `-- NAME --` before each.

pub(crate) struct Archive {
    pub(crate) prose: String,
    pub(crate) files: Vec<(String, String)>,
}

impl Archive {
    pub(crate) fn parse(text: &str) -> Archive {
        let mut archive = Archive { prose: String::new(), files: Vec::new() };
        for line in text.lines() {
            match line.strip_prefix("-- ").and_then(|line| line.strip_suffix(" --")) {
                Some(name) => archive.files.push((name.to_owned(), String::new())),
                None => {
                    let text = archive.files.last_mut().map_or(&mut archive.prose, |(_, text)| text);
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        archive
    }

    pub(crate) fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// Puts a file in place of one, or behind all.
    pub(crate) fn put(&mut self, name: &str, text: String) {
        match self.files.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = text,
            None => self.files.push((name.to_owned(), text)),
        }
    }

    pub(crate) fn print(&self) -> String {
        let files = self.files.iter().map(|(name, text)| format!("-- {name} --\n{text}"));
        self.prose.clone() + &files.collect::<String>()
    }
}
