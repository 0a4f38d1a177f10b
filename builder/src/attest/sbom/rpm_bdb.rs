//! Berkeley DB's files of kind hash, in which rpm kept `Packages` up to RHEL 8 and Fedora 32. They consist of pages; the first
//! describes the file, those of kind hash have keys and values in turn, and what does not fit there is in chains of
//! overflow pages. Numbers are in the byte order of the machine that wrote them. (Berkeley DB 5.3, dbinc/db_page.h)

use std::io::{self, Read, Seek, SeekFrom};

/// In the first page, for files of kind hash.
const MAGIC: u32 = 0x0006_1561;
const MAGIC_AT: usize = 12;
const PAGE_SIZE_AT: usize = 20;
const ENCRYPTION_AT: usize = 24;
const LAST_PAGE_AT: usize = 32;
/// What of the first page is read.
const META: usize = 72;

/// What a page begins with; behind it are the places of its items, or the data of an overflow page.
const HEAD: usize = 26;
const NEXT_PAGE_AT: usize = 16;
const ENTRIES_AT: usize = 20;
/// In overflow pages: how many bytes of data it has.
const LENGTH_AT: usize = 22;
const KIND_AT: usize = 25;

/// Kinds of pages.
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;

/// Kinds of items: the data itself, or the overflow page where it begins and its length.
const KEY_DATA: u8 = 1;
const OFF_PAGE: u8 = 3;
/// Size of an item of the second kind.
const OFF_PAGE_BYTES: usize = 12;

/// An opened file.
pub struct Database<R> {
    file: R,
    number: fn([u8; 4]) -> u32,
    page_bytes: usize,
    last_page: u32,
    /// Bytes of overflow pages that may still be read: each of them belongs to one item.
    left: u64,
}

impl<R: Read + Seek> Database<R> {
    /// Reads the first page.
    pub fn open(mut file: R) -> Result<Database<R>, String> {
        let length = file.seek(SeekFrom::End(0)).map_err(text)?;
        let mut meta = [0; META];
        if length >= META as u64 {
            read_at(&mut file, 0, &mut meta)?;
        }
        let numbers: [fn([u8; 4]) -> u32; 2] = [u32::from_le_bytes, u32::from_be_bytes];
        let number = numbers.into_iter().find(|number| number(word(&meta, MAGIC_AT)) == MAGIC);
        let number = number.ok_or("it is no database of Berkeley DB's kind hash")?;
        if meta[ENCRYPTION_AT] != 0 {
            return Err("it is encrypted".into());
        }
        let page_bytes = number(word(&meta, PAGE_SIZE_AT)) as usize;
        if !page_bytes.is_power_of_two() || !(512..=64 << 10).contains(&page_bytes) {
            return Err("the size of its pages is none".into());
        }
        let pages = length / page_bytes as u64;
        let last_page = number(word(&meta, LAST_PAGE_AT));
        if u64::from(last_page) >= pages {
            return Err("it is cut off".into());
        }
        Ok(Database { file, number, page_bytes, last_page, left: length })
    }

    /// Gives each key with its value, or with what is wrong with that, in no particular order.
    pub fn each(&mut self, mut item: impl FnMut(&[u8], Result<Vec<u8>, String>)) -> Result<(), String> {
        let mut page = vec![0; self.page_bytes];
        for number in 1..=self.last_page {
            self.read_page(number, &mut page)?;
            if !matches!(page[KIND_AT], HASH | HASH_UNSORTED) {
                continue;
            }
            let items = self.items(&page).ok_or_else(|| format!("page {number} is damaged"))?;
            for pair in items.chunks_exact(2) {
                let Some((&KEY_DATA, key)) = pair[0].split_first() else { continue };
                let value = match pair[1].split_first() {
                    Some((&KEY_DATA, value)) => Ok(value.to_vec()),
                    Some((&OFF_PAGE, _)) if pair[1].len() >= OFF_PAGE_BYTES => self.overflow(pair[1]),
                    _ => Err("a value is of an unknown kind".into()),
                };
                item(key, value);
            }
        }
        Ok(())
    }

    fn read_page(&mut self, number: u32, page: &mut [u8]) -> Result<(), String> {
        read_at(&mut self.file, u64::from(number) * self.page_bytes as u64, page)
    }

    fn half(&self, bytes: &[u8], at: usize) -> usize {
        // As a number of four bytes, in either order.
        let [first, second] = [bytes[at], bytes[at + 1]];
        let swapped = (self.number)([1, 0, 0, 0]) != 1;
        usize::from(if swapped { u16::from_be_bytes([first, second]) } else { u16::from_le_bytes([first, second]) })
    }

    /// The items of a page, which lie from its end to its middle. `None` if they overlap with anything.
    fn items<'a>(&self, page: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let count = self.half(page, ENTRIES_AT);
        let lowest = HEAD + count * 2;
        let mut end = page.len();
        let places = (0..count).map(|index| HEAD + index * 2).take_while(|at| at + 2 <= page.len());
        let items = places.map(|at| {
            let start = self.half(page, at);
            let item = page.get(start..end).filter(|_| start >= lowest);
            end = start;
            item
        });
        items.collect()
    }

    /// The data that an item says is elsewhere.
    fn overflow(&mut self, item: &[u8]) -> Result<Vec<u8>, String> {
        let (mut next, length) = ((self.number)(word(item, 4)), (self.number)(word(item, 8)) as usize);
        let mut data = vec![];
        let mut page = vec![0; self.page_bytes];
        while data.len() < length {
            self.left = self.left.checked_sub(page.len() as u64).ok_or("overflow pages are used twice")?;
            if next == 0 || next > self.last_page {
                return Err("a value is cut off".into());
            }
            self.read_page(next, &mut page)?;
            let part = page.get(HEAD..HEAD + self.half(&page, LENGTH_AT));
            match part.filter(|part| page[KIND_AT] == OVERFLOW && !part.is_empty()) {
                Some(part) => data.extend(part),
                None => return Err("an overflow page is damaged".into()),
            }
            next = (self.number)(word(&page, NEXT_PAGE_AT));
        }
        data.truncate(length);
        Ok(data)
    }
}

fn read_at(file: &mut (impl Read + Seek), place: u64, bytes: &mut [u8]) -> Result<(), String> {
    file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(bytes)).map_err(text)
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes[at..at + 4].try_into().expect("four bytes")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    const PAGE: usize = 512;

    /// A file of pages of 512 bytes: one of kind hash with all pairs, and overflow pages for values that have more than 100 bytes.
    pub(in super::super) fn database(pairs: &[(&[u8], &[u8])], big_endian: bool) -> Vec<u8> {
        let word = |number: usize| match big_endian {
            true => (number as u32).to_be_bytes(),
            false => (number as u32).to_le_bytes(),
        };
        let half = |number: usize| match big_endian {
            true => (number as u16).to_be_bytes(),
            false => (number as u16).to_le_bytes(),
        };
        let put = |page: &mut Vec<u8>, at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let mut overflow: Vec<Vec<u8>> = vec![];
        let (mut hash, mut end) = (vec![0; PAGE], PAGE);
        hash[KIND_AT] = HASH;
        put(&mut hash, ENTRIES_AT, &half(pairs.len() * 2));
        let mut items: Vec<Vec<u8>> = vec![];
        for (key, value) in pairs {
            items.push([&[KEY_DATA], *key].concat());
            if value.len() <= 100 {
                items.push([&[KEY_DATA], *value].concat());
                continue;
            }
            let first = 2 + overflow.len();
            items.push([[OFF_PAGE, 0, 0, 0], word(first), word(value.len())].concat());
            let mut parts = value.chunks(PAGE - HEAD).peekable();
            while let Some(part) = parts.next() {
                let mut page = vec![0; PAGE];
                page[KIND_AT] = OVERFLOW;
                let next = if parts.peek().is_some() { 3 + overflow.len() } else { 0 };
                put(&mut page, NEXT_PAGE_AT, &word(next));
                put(&mut page, LENGTH_AT, &half(part.len()));
                put(&mut page, HEAD, part);
                overflow.push(page);
            }
        }
        for (index, item) in items.iter().enumerate() {
            end -= item.len();
            put(&mut hash, end, item);
            put(&mut hash, HEAD + index * 2, &half(end));
        }
        let mut meta = vec![0; PAGE];
        put(&mut meta, MAGIC_AT, &word(MAGIC as usize));
        put(&mut meta, PAGE_SIZE_AT, &word(PAGE));
        put(&mut meta, LAST_PAGE_AT, &word(1 + overflow.len()));
        [vec![meta, hash], overflow].concat().concat()
    }

    type Pairs = Vec<(Vec<u8>, Result<Vec<u8>, String>)>;

    fn read(bytes: &[u8]) -> Result<Pairs, String> {
        let mut pairs = vec![];
        Database::open(Cursor::new(bytes))?.each(|key, value| pairs.push((key.to_vec(), value)))?;
        Ok(pairs)
    }

    #[test]
    fn pairs_come_back_whatever_their_size() {
        let large = (0..2000).map(|number| number as u8).collect::<Vec<_>>();
        let pairs: [(&[u8], &[u8]); 4] = [(b"a", b"small"), (b"b", &large), (b"", b""), (b"d", &large[..486])];
        let expect: Pairs = pairs.iter().map(|(key, value)| (key.to_vec(), Ok(value.to_vec()))).collect();
        for big_endian in [false, true] {
            assert_eq!(read(&database(&pairs, big_endian)), Ok(expect.clone()));
        }
    }

    #[test]
    fn damage_is_told() {
        let large = [7; 1200];
        let good = database(&[(b"k", &large)], false);
        assert_eq!(read(&good[..100]).unwrap_err(), "it is cut off");
        for none in [b"short".as_slice(), &[0; PAGE]] {
            assert_eq!(read(none).unwrap_err(), "it is no database of Berkeley DB's kind hash");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read(&bytes)
        };
        assert_eq!(with(ENCRYPTION_AT, 1).unwrap_err(), "it is encrypted");
        assert_eq!(with(PAGE_SIZE_AT, 1).unwrap_err(), "the size of its pages is none");
        assert_eq!(with(PAGE + ENTRIES_AT + 1, 0xff).unwrap_err(), "page 1 is damaged");
        let value = |result: Result<Pairs, String>| result.unwrap().remove(0).1.unwrap_err();
        assert_eq!(value(with(2 * PAGE + NEXT_PAGE_AT, 9)), "a value is cut off");
        assert_eq!(value(with(2 * PAGE + KIND_AT, HASH)), "an overflow page is damaged");
        assert_eq!(value(with(2 * PAGE + LENGTH_AT + 1, 0xff)), "an overflow page is damaged");
        // A chain that bites its tail, of a value that claims to be large.
        let mut endless = good.clone();
        endless[2 * PAGE + NEXT_PAGE_AT] = 2;
        let item = PAGE + PAGE - 2 - OFF_PAGE_BYTES;
        endless[item + 8..item + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(value(read(&endless)), "overflow pages are used twice");
        for at in 0..good.len() {
            for byte in [0, 1, 0x80, 0xff] {
                let _ = with(at, byte);
            }
            let _ = read(&good[..at]);
        }
    }
}
