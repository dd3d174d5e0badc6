/* A program: a plan of commbench/cutting.py as tables of 64-bit words, written by translation.py and compiled.py. */
#include <stdatomic.h>
#include <stdint.h>

/* Of mailbox.py: a slot is a token's number, its four words, and the number of who took it. */
enum { SLOTS = 16, WORDS = 8, TAKEN = 5 };
/* Of shared_memory.py: what a token is for, and the buffer of one whose elements are not here. */
enum { PLAIN, LENT, ANSWERED };
enum { PRIVATE = -1 };

enum { SEND, AWAIT, COPY, ADD, TOTAL, POST, FETCH };
enum { UNSENT, HELD_BACK, SENT, TAKEN_AWAY };
enum { ENDED = -1, NOT_HERE = -2, MPI_FAILED = -3 };
/* Messages to one peer that MPI has at once; of mpi.py. */
enum { MOST_UNDER_WAY = 8 };
enum { BLOCKED, PASSED, FAULTY };

/* Offsets are in bytes, from `own`. */
typedef struct {
    int64_t kind;
    int64_t peer;   /* COPY, ADD: the source */
    int64_t offset; /* COPY, ADD, TOTAL: of the elements to be overwritten or added to */
    int64_t nbytes;
    int64_t first; /* SEND, AWAIT: the message; TOTAL: its first term; FETCH, POST: the receive */
    int64_t terms; /* TOTAL: how many */
} step_t;

typedef struct {
    int64_t peer;
    int64_t token[4];  /* buffer, offset, bytes, what for */
    int64_t purpose;   /* what for, unless it turns out to be answered in place */
    int64_t copied;    /* offset of the elements that must be copied there first, or -1 */
    int64_t rounded;   /* whether they must be rounded first */
    int64_t following; /* the next message to the same peer, or -1 */
    void *request;     /* to a peer that is far */
    int64_t number;
    int64_t state;
} message_t;

typedef struct {
    int64_t peer;
    int64_t answer; /* the message that brings it the sum, or -1 */
} term_t;

/* A message from a peer that is far. */
typedef struct {
    void *request;
    const char *term;     /* what is to be added, once it is here; NULL: it comes where it belongs */
    int64_t follows;      /* whether an earlier receive of the round must be through before */
    int64_t first_reader; /* of the messages that must have left before it may come there */
    int64_t readers;
} receive_t;

typedef struct {
    _Atomic int64_t *out, *in;   /* the slots of the two lanes; NULL if it is far */
    int64_t *last_out, *last_in; /* numbers of the last tokens */
    int64_t held_back;           /* the first message that could not be handed over, or -1 */
    int64_t oldest, under_way;   /* of those that MPI has */
} peer_t;

typedef struct {
    step_t *steps;
    int64_t step_count;
    message_t *messages;
    int64_t message_count;
    term_t *terms;
    receive_t *receives;
    int64_t *readers;
    peer_t *peers;
    int64_t peer_count;
    int64_t near_count; /* the first so many of them are near */
    char **buffers;     /* of each shared buffer, the part of every peer that is near */
    char *own;
    int64_t element;
    char *sums; /* of 16-bit elements: where they are added, as if `own` were twice as long */
    int64_t offset, nbytes; /* of the array in `own` */
    int64_t pauses; /* before the core is given away for the first time */
    int (*start)(void *request);
    int (*test)(void *request, int *flag, void *status);
    void *status;
    int64_t at, term; /* the step that is next, and how many of its terms have been added */
    int64_t posted, fetched; /* how many receives */
    int64_t peers_held_back;
    int64_t missed; /* the peer that a step which could not be done waits for */
    int64_t error;  /* of MPI */
} program_t;
