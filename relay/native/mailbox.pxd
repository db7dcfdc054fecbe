"""The two queues between Python's threads and the reactor, each with an eventfd that wakes the other side.

Commands (Python to reactor) and calls (reactor to Python) are bounded, and of tables of names only the newest
waits; reports of state have one slot a node and are merged. The lock is held for a few instructions, never across a
wait or a system call that can block.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset, strlen

from relay.native.memory cimport memory_release, memory_take
from relay.native.model cimport (
    COMMAND_NAMES, REPORT_SUBSCRIBER, Command, Mailbox, Node, NodeStream, Reactor, Report, TEXT_BYTES,
)
from relay.native.names cimport Names
from relay.native.posix cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, close, eventfd, pthread_cond_destroy, pthread_cond_init, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, read, write,
)
from relay.native.status cimport STATUS_FULL, STATUS_OK, STATUS_SHUTDOWN, STATUS_SYSTEM
from relay.native.tls_context cimport tls_context_release

cdef enum:
    MAILBOX_COMMANDS = 4096           # commands that may wait
    MAILBOX_COMMAND_BYTES = 16777216  # and their bytes; one command alone may be larger
    MAILBOX_REPORTS = 4096            # calls and subscriber reports that may wait
    MAILBOX_REPORT_BYTES = 1048576    # and the bytes of their messages; one alone may be larger


cdef inline int mailbox_init(Mailbox *mailbox) noexcept nogil:
    memset(mailbox, 0, sizeof(Mailbox))
    pthread_mutex_init(&mailbox.lock, NULL)
    pthread_cond_init(&mailbox.answered, NULL)
    mailbox.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    mailbox.told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if mailbox.wake < 0 or mailbox.told < 0:
        return STATUS_SYSTEM
    return STATUS_OK


cdef inline void command_free(Reactor *reactor, Command *command) noexcept nogil:
    """Give back a command that was not run, with what it carries."""
    memory_release(&reactor.memory, command.names)
    tls_context_release(command.tls[0])
    tls_context_release(command.tls[1])
    memory_release(&reactor.memory, command)


cdef inline void mailbox_free(Reactor *reactor) noexcept nogil:
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef Command *command = mailbox.first
    cdef Command *next_command
    cdef Report *report = mailbox.first_report
    cdef Report *next_report
    while command != NULL:
        next_command = command.next
        command_free(reactor, command)
        command = next_command
    while report != NULL:
        next_report = report.next
        memory_release(&reactor.memory, report)
        report = next_report
    mailbox.first = NULL
    mailbox.last = NULL
    mailbox.first_report = NULL
    mailbox.last_report = NULL
    if mailbox.wake >= 0:
        close(mailbox.wake)
    if mailbox.told >= 0:
        close(mailbox.told)
    pthread_cond_destroy(&mailbox.answered)
    pthread_mutex_destroy(&mailbox.lock)


cdef inline void eventfd_raise(int fd) noexcept nogil:
    cdef uint64_t one = 1
    write(fd, &one, sizeof(one))


cdef inline void eventfd_clear(int fd) noexcept nogil:
    cdef uint64_t count
    read(fd, &count, sizeof(count))


cdef inline Command *command_new(Reactor *reactor, int kind, size_t size) noexcept nogil:
    """A command with room for `size` bytes behind it; NULL without memory."""
    cdef Command *command
    if size > <size_t> -1 - sizeof(Command):
        return NULL
    command = <Command *> memory_take(&reactor.memory, sizeof(Command) + size)
    if command != NULL:
        memset(command, 0, sizeof(Command))
        command.kind = <unsigned char> kind
        command.size = size
        command.data = <unsigned char *> (command + 1)
    return command


cdef inline bint _mailbox_merged(Mailbox *mailbox, Command *command) noexcept nogil:
    """Put a table of names in the place of the one that waits; the command then has the old one. Under the lock."""
    cdef Names *former
    if command.kind != COMMAND_NAMES or mailbox.naming == NULL:
        return False
    former = mailbox.naming.names
    mailbox.naming.names = command.names
    command.names = former
    return True


cdef inline int mailbox_command(Reactor *reactor, Command *command, bint bounded) noexcept nogil:
    """Hand a command to the reactor. Whatever the answer, the command is not the caller's any more."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef bint first
    cdef bint merged = False
    cdef int status = STATUS_OK
    pthread_mutex_lock(&mailbox.lock)
    if not mailbox.running:
        status = STATUS_SHUTDOWN
    elif _mailbox_merged(mailbox, command):
        merged = True
    elif bounded and (
        mailbox.commands >= MAILBOX_COMMANDS
        or (mailbox.commands and mailbox.command_bytes + command.size > MAILBOX_COMMAND_BYTES)
    ):
        status = STATUS_FULL
    if merged or status != STATUS_OK:
        pthread_mutex_unlock(&mailbox.lock)
        command_free(reactor, command)
        return status
    if command.kind == COMMAND_NAMES:
        mailbox.naming = command
    first = mailbox.first == NULL
    if first:
        mailbox.first = command
    else:
        mailbox.last.next = command
    mailbox.last = command
    mailbox.commands += 1
    mailbox.command_bytes += command.size
    pthread_mutex_unlock(&mailbox.lock)
    if first:
        eventfd_raise(mailbox.wake)
    return STATUS_OK


cdef inline Command *mailbox_take(Reactor *reactor) noexcept nogil:
    """All commands that wait, oldest first."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef Command *command
    pthread_mutex_lock(&mailbox.lock)
    command = mailbox.first
    mailbox.first = NULL
    mailbox.last = NULL
    mailbox.naming = NULL
    mailbox.commands = 0
    mailbox.command_bytes = 0
    pthread_mutex_unlock(&mailbox.lock)
    return command


cdef inline void text_copy(char *to, const char *text) noexcept nogil:
    """Copy a text into a TEXT_BYTES field, cut to fit."""
    cdef size_t size = strlen(text)
    if size > TEXT_BYTES - 1:
        size = TEXT_BYTES - 1
    memcpy(to, text, size)
    to[size] = 0


cdef inline Report *report_new(Reactor *reactor, int kind, size_t size) noexcept nogil:
    cdef Report *report = <Report *> memory_take(&reactor.memory, sizeof(Report) + size)
    if report != NULL:
        memset(report, 0, sizeof(Report))
        report.kind = <unsigned char> kind
        report.size = size
        report.data = <unsigned char *> (report + 1)
    return report


cdef inline int mailbox_report(Reactor *reactor, Report *report, bint bounded) noexcept nogil:
    """Queue a report for Python; a bounded one that finds the queue full is refused, and freed."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef int status = STATUS_OK
    cdef bint tell = False
    pthread_mutex_lock(&mailbox.lock)
    if bounded and (
        mailbox.reports >= MAILBOX_REPORTS
        or (mailbox.report_bytes and mailbox.report_bytes + report.size > MAILBOX_REPORT_BYTES)
    ):
        status = STATUS_FULL
        if report.kind == REPORT_SUBSCRIBER:
            mailbox.dropped += 1
    else:
        if mailbox.first_report == NULL:
            mailbox.first_report = report
        else:
            mailbox.last_report.next = report
        mailbox.last_report = report
        mailbox.reports += 1
        mailbox.report_bytes += report.size
        tell = not mailbox.reporting
        mailbox.reporting = True
    pthread_mutex_unlock(&mailbox.lock)
    if tell:
        eventfd_raise(mailbox.told)
    if status != STATUS_OK:
        memory_release(&reactor.memory, report)
    return status


cdef inline void _mailbox_node(Mailbox *mailbox, Node *node, bint *tell) noexcept nogil:
    if not node.dirty:
        node.dirty = True
        node.next_dirty = mailbox.dirty_nodes
        mailbox.dirty_nodes = node
    tell[0] = not mailbox.reporting
    mailbox.reporting = True


cdef inline void mailbox_node(Reactor *reactor, Node *node, int state, int code, const char *text) noexcept nogil:
    """The newest state of a node; an older one that Python has not read yet is replaced."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef bint tell = False
    pthread_mutex_lock(&mailbox.lock)
    node.state_changed = True
    node.report_state = <unsigned char> state
    node.report_code = code
    text_copy(node.report_text, text)
    _mailbox_node(mailbox, node, &tell)
    pthread_mutex_unlock(&mailbox.lock)
    if tell:
        eventfd_raise(mailbox.told)


cdef inline void mailbox_stream(
    Reactor *reactor, Node *node, NodeStream *stream, int code, const char *text
) noexcept nogil:
    """A feed of a node ended while the node lives."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef bint tell = False
    pthread_mutex_lock(&mailbox.lock)
    stream.reported = True
    stream.report_code = code
    text_copy(stream.report_text, text)
    _mailbox_node(mailbox, node, &tell)
    pthread_mutex_unlock(&mailbox.lock)
    if tell:
        eventfd_raise(mailbox.told)


cdef inline void mailbox_forget(Reactor *reactor, Node *node) noexcept nogil:
    """Take a node that is about to be freed out of the slots."""
    cdef Mailbox *mailbox = &reactor.mailbox
    cdef Node **link
    pthread_mutex_lock(&mailbox.lock)
    if node.dirty:
        link = &mailbox.dirty_nodes
        while link[0] != node:
            link = &link[0].next_dirty
        link[0] = node.next_dirty
        node.dirty = False
    pthread_mutex_unlock(&mailbox.lock)
