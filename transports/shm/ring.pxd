# What turns ring.py into C when it is compiled; the source is ring.py alone. The orders are argued in fence.py.
cimport cython

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* The rings own their memoryviews and let nobody else have them. So a view is released only where it is
     * replaced by one of no words, and within one of these functions, which call no Python, it stays. */

    static CYTHON_INLINE uint32_t *frieda_word(PyObject *words, Py_ssize_t index) {
        Py_buffer *buffer = PyMemoryView_Check(words) ? PyMemoryView_GET_BUFFER(words) : NULL;
        if (!buffer || index < 0 || index >= buffer->len / (Py_ssize_t)sizeof(uint32_t)) {
            PyErr_SetString(PyExc_IndexError, "a word outside of the memory of the ring");
            return NULL;
        }
        if (buffer->readonly) {
            PyErr_SetString(PyExc_TypeError, "the memory of a ring must be writable");
            return NULL;
        }
        return (uint32_t *)buffer->buf + index;
    }

    static CYTHON_INLINE uint32_t frieda_load(PyObject *words, Py_ssize_t index) {
        uint32_t *word = frieda_word(words, index);
        return word != NULL ? __atomic_load_n(word, __ATOMIC_ACQUIRE) : UINT32_MAX;
    }

    static CYTHON_INLINE int frieda_store(PyObject *words, Py_ssize_t index, uint32_t value) {
        uint32_t *word = frieda_word(words, index);
        if (word == NULL) return -1;
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
        return 0;
    }

    static CYTHON_INLINE void frieda_fence(void) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }

    /* Whose memory is copied cannot be released meanwhile: its buffer is held. */
    static int frieda_copy_in(PyObject *payload, Py_ssize_t start, Py_ssize_t end, PyObject *piece) {
        Py_buffer target, source;
        int result = -1;
        if (PyObject_GetBuffer(payload, &target, PyBUF_WRITABLE) < 0) return -1;
        if (start < 0 || end < start || end > target.len) {
            PyErr_SetString(PyExc_ValueError, "a piece outside of its slot");
        } else if (PyObject_GetBuffer(piece, &source, PyBUF_FULL_RO) == 0) {
            /* Compares the sizes; a memcpy where `piece` is contiguous. */
            result = PyBuffer_ToContiguous((char *)target.buf + start, &source, end - start, 'C');
            PyBuffer_Release(&source);
        }
        PyBuffer_Release(&target);
        return result;
    }

    static int frieda_copy_out(PyObject *slot, PyObject *payload, Py_ssize_t size) {
        Py_buffer target, source;
        int result = -1;
        if (PyObject_GetBuffer(slot, &target, PyBUF_WRITABLE) < 0) return -1;
        if (PyObject_GetBuffer(payload, &source, PyBUF_SIMPLE) == 0) {
            if (size < 0 || size > target.len || size > source.len) {
                PyErr_SetString(PyExc_ValueError, "a message larger than its slot");
            } else {
                memcpy(target.buf, source.buf, (size_t)size);
                result = 0;
            }
            PyBuffer_Release(&source);
        }
        PyBuffer_Release(&target);
        return result;
    }
    """
    unsigned int _load "frieda_load" (memoryview, Py_ssize_t) except? 0xFFFFFFFF
    int _store "frieda_store" (memoryview, Py_ssize_t, unsigned int) except -1
    void _fence "frieda_fence" () noexcept
    int _copy_in "frieda_copy_in" (memoryview, Py_ssize_t, Py_ssize_t, object) except -1
    int _copy_out "frieda_copy_out" (object, memoryview, Py_ssize_t) except -1

cdef bint _COMPILED
cdef long long _SIZE_BITS
cdef long long _LAP
cdef long long _LAST_LAP

@cython.final
cdef class SendRing:
    cdef memoryview _words
    cdef tuple _payloads
    cdef Py_ssize_t _first_word
    cdef Py_ssize_t _word
    cdef Py_ssize_t _words_apart
    cdef Py_ssize_t _consumed_index
    cdef Py_ssize_t _sleeping_index
    cdef Py_ssize_t _slot_bytes
    cdef Py_ssize_t _window
    cdef long long _modulus
    cdef Py_ssize_t _room
    cdef Py_ssize_t _index
    cdef long long _lap
    cdef object _release
    cdef object _acquire

    @cython.locals(
        index=Py_ssize_t, payload=memoryview, size=Py_ssize_t, start=Py_ssize_t, words=memoryview,
    )
    cpdef bint put(self, object pieces) except -1

    cpdef release(self)

    @cython.locals(consumed="unsigned int", produced="long long", unconsumed="long long")
    cdef Py_ssize_t _look_for_room(self) except -1

@cython.final
cdef class ReceiveRing:
    cdef readonly tuple receive_slots
    cdef readonly Py_ssize_t slot
    cdef memoryview _words
    cdef tuple _payloads
    cdef Py_ssize_t _first_word
    cdef Py_ssize_t _word
    cdef Py_ssize_t _words_apart
    cdef Py_ssize_t _consumed_index
    cdef Py_ssize_t _sleeping_index
    cdef Py_ssize_t _slot_bytes
    cdef Py_ssize_t _window
    cdef list _seen
    cdef Py_ssize_t _index
    cdef Py_ssize_t _position
    cdef long long _lap
    cdef list _posted
    cdef list _is_posted
    cdef object _release
    cdef object _acquire

    @cython.locals(
        index=Py_ssize_t, word="unsigned int", seen="unsigned int", size="long long", slot=Py_ssize_t,
        position=Py_ssize_t,
    )
    cpdef Py_ssize_t take(self) except -1

    cpdef post(self, Py_ssize_t slot)

    @cython.locals(words=memoryview, seen="unsigned int")
    cpdef bint sleep(self) except -1

    cpdef wake(self)
    cpdef release(self)

cdef memoryview _no_words()
