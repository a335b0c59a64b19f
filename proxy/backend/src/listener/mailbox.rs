//! What waits for one client: notifications, and the word that some were lost.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One NotificationResponse, shared by all who get it.
#[derive(Debug, PartialEq, Eq)]
pub struct Notification {
    /// Its channel.
    pub channel: Box<str>,
    /// The message, whole.
    pub message: Box<[u8]>,
}

/// What a client is to hear, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// A notification.
    Notification(Arc<Notification>),
    /// So many did not fit.
    Lost(u64),
    /// The listening connection was another one for what follows: what was said in between, nobody heard.
    Gap,
    /// Nothing will come any more: the pool is gone, or of another mode.
    Closed,
}

/// A client's place for notifications. The listener fills it, the client empties it.
pub struct Mailbox {
    mail: Mutex<Queue>,
    size: usize,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    mail: VecDeque<Mail>,
    notifications: usize,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    /// A place for `size` notifications; `wake` is called when the first thing comes after it was empty.
    #[must_use]
    pub fn new(size: usize, wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            mail: Mutex::default(),
            size,
            wake: Box::new(wake),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Queue)) {
        let wakes = {
            let mut queue = self.queue();
            let was_empty = queue.mail.is_empty();
            change(&mut queue);
            was_empty && !queue.mail.is_empty()
        };
        if wakes {
            (self.wake)();
        }
    }

    /// Puts a notification in; says whether there was room. What does not fit is counted, in its place.
    pub(crate) fn push(&self, notification: &Arc<Notification>) -> bool {
        let mut fits = true;
        self.put(|queue| {
            fits = queue.notifications < self.size;
            if fits {
                queue.notifications += 1;
                let mail = Mail::Notification(notification.clone());
                queue.mail.push_back(mail);
            } else if let Some(Mail::Lost(count)) = queue.mail.back_mut() {
                *count += 1;
            } else {
                queue.mail.push_back(Mail::Lost(1));
            }
        });
        fits
    }

    /// Puts a word of the listener's own in, once.
    pub(crate) fn tell(&self, word: Mail) {
        self.put(|queue| {
            if queue.mail.back() != Some(&word) {
                queue.mail.push_back(word);
            }
        });
    }

    /// Takes the oldest out, up to so many bytes and at least one.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Vec<Mail> {
        let mut queue = self.queue();
        let (mut taken, mut size) = (Vec::new(), 0);
        while let Some(mail) = queue.mail.front() {
            if let Mail::Notification(notification) = mail {
                size += notification.message.len();
                if size > bytes && !taken.is_empty() {
                    break;
                }
                queue.notifications -= 1;
            }
            taken.extend(queue.mail.pop_front());
        }
        taken
    }

    /// Throws away what came on channels that the client does not listen to any more.
    pub(crate) fn forget(&self, channels: &[Box<str>]) {
        let mut queue = self.queue();
        queue
            .mail
            .retain(|mail| !matches!(mail, Mail::Notification(n) if channels.contains(&n.channel)));
        let is_notification = |mail: &&Mail| matches!(mail, Mail::Notification(_));
        queue.notifications = queue.mail.iter().filter(is_notification).count();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn notification(channel: &str) -> Arc<Notification> {
        Arc::new(Notification {
            channel: channel.into(),
            message: vec![0; 10].into(),
        })
    }

    #[test]
    fn what_does_not_fit_is_counted_in_its_place() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let mailbox = Mailbox::new(2, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let (a, b) = (notification("a"), notification("b"));
        assert!(mailbox.push(&a) && mailbox.push(&a));
        assert!(!mailbox.push(&b) && !mailbox.push(&b));
        assert_eq!(mailbox.take(5), [Mail::Notification(a.clone())]);
        assert!(mailbox.push(&b));
        assert_eq!(
            mailbox.take(1000),
            [
                Mail::Notification(a),
                Mail::Lost(2),
                Mail::Notification(b.clone())
            ]
        );
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(mailbox.push(&b));
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_channel_that_is_left_makes_room() {
        let mailbox = Mailbox::new(2, || {});
        let (a, b) = (notification("a"), notification("b"));
        assert!(mailbox.push(&a) && mailbox.push(&b));
        mailbox.tell(Mail::Gap);
        mailbox.tell(Mail::Gap);
        mailbox.forget(&["a".into()]);
        assert!(mailbox.push(&b));
        let rest = [
            Mail::Notification(b.clone()),
            Mail::Gap,
            Mail::Notification(b),
        ];
        assert_eq!(mailbox.take(1000), rest);
        assert!(mailbox.take(1000).is_empty());
    }
}
