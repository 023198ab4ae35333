------------------------------- MODULE SyncLog -------------------------------
(***************************************************************************)
(* A replicated log whose leader is elected irrespective of its log and    *)
(* then synchronises from a quorum.  Entries are not fsynced, so a power   *)
(* loss may take the tail of a log away; the term, the configuration and   *)
(* the history number are durable.                                         *)
(*                                                                         *)
(* What is abstracted away, and why that loses nothing for safety:         *)
(*  - Scouting, sticky leaders, cession, transfer, failure detection,      *)
(*    timers and quiescence only decide WHEN a node campaigns or stops     *)
(*    leading.  Here every node may campaign at any time, so every         *)
(*    behaviour with them is one here.  Election.tla is about them.        *)
(*  - The network keeps every message that can still have an effect:       *)
(*    messages may be lost (never handled), delayed, duplicated, reordered.*)
(*  - A process crash with the page cache intact is a node that takes no   *)
(*    further step in its role: it needs no action.  Lose is a power loss. *)
(*  - An entry is identified by (index, term), a log is a sequence of      *)
(*    terms, a snapshot is a prefix.  (That a term has one leader, so that *)
(*    (index, term) names one entry, is ElectionSafety.)                   *)
(*  - A vote IS the durable step of the term, and a vote is a sync answer: *)
(*    it carries the log.  Fetching the suffix is one step, or several     *)
(*    (feature "partial").                                                 *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Server,       \* all nodes
  Voters,       \* the voters at first
  Campaigners,  \* who may campaign (fewer: smaller state space)
  MaxTerm, MaxLen, MaxLoss,
  MaxChange,    \* changes of the configuration; leaving joint is none
  MaxForce,     \* forced recoveries
  Targets,      \* the sets of voters that a joint change may lead to
  Dead,         \* the sets of nodes that an operator may name as dead
  Witness,      \* voters that acknowledge entries without keeping them
  Features,     \* parts of the protocol or of the world, see below
  Broken,       \* rules that are broken on purpose
  Script        \* the steps to take, if not <<>>: see MCSyncLog

(***************************************************************************)
(* Features:                                                               *)
(*  "past"     a power loss reverts to ANY earlier version of the log, even *)
(*             a truncation may be undone; without: to a prefix            *)
(*  "partial"  fetching the chosen log may stop half-way                   *)
(*  "restamp"  re-stamping the configuration and becoming ready are two    *)
(*             steps, between which a node may fail                        *)
(*  "cede"     a leader may stop leading for good and stay in its term     *)
(*  "single"   changes of one voter at a time                              *)
(*  "wipe"     a removed node may delete its log, but not what is durable  *)
(*  "marked"   a witness is not counted in the sync phase                  *)
(*  "shy"      acks of recovering nodes are not counted: also safe         *)
(*  "all"      forced recovery once every voter reported                   *)
(*                                                                         *)
(* Broken: the rules W1 to W17 and some more, each named where it is used. *)
(***************************************************************************)
Has(f) == f \in Features
Breaks(w) == w \in Broken
HasPast == Has("past")
AckShy == Has("shy")
Changing == MaxChange > 0 \/ Dead # {}

VARIABLES
  term,      \* durable
  cfg,       \* durable: the configuration register
  history,   \* durable: the history number
  role,      \* "F" follower, "C" candidate or leader syncing, "L" leader
  log,       \* not synced
  rec,       \* recovering
  need,      \* of a leader: what the present configuration has to hold
             \* before the next change
  since,     \* of a leader: per member, the stamp from which its acks count
  order,     \* whom the operator's order names as dead, of a candidate and,
             \* until they are dropped, of a leader
  msgs,
  registers, \* configurations that may be heard of
  off,       \* nodes that are off for good
  committed, \* ghost: {<<index, term of the entry, term of the commit,
             \*           history of the commit>>}
  gone,      \* ghost: commits that a forced recovery gave up
  elected,   \* ghost: {<<term, node>>}
  failed,    \* ghost: a forced recovery dropped what somebody had
  past,      \* ghost: logs held before a truncation
  spent,     \* ghost: how many losses, changes, forced recoveries there were
  at         \* steps of the script taken

durable == <<term, cfg, history>>
leading == <<need, since, order>>
ghosts == <<gone, failed>>
vars == <<durable, role, log, rec, leading, msgs,
          registers, off, committed, gone, elected, failed, past, spent, at>>

Alive == Server \ off

(* ---------------------------- configurations -------------------------- *)
\* t, n: the stamp; v: the voters; o: the outgoing voters, {} unless joint
Less(c, d) == c.t < d.t \/ (c.t = d.t /\ c.n < d.n)
Everyone(c) == c.v \cup c.o
Most(V, S) == 2 * Cardinality(V \cap S) > Cardinality(V)
\* J1: quorums of a joint configuration are those of the new voters only
Quorum(c, S) == Most(c.v, S) /\ (c.o = {} \/ Breaks("J1") \/ Most(c.o, S))

(* -------------------------------- logs -------------------------------- *)
LastTerm(l) == IF Len(l) = 0 THEN 0 ELSE l[Len(l)]
\* W13: the longest log is the best
GE(a, b) == IF Breaks("W13")
            THEN \/ Len(a) > Len(b)
                 \/ Len(a) = Len(b) /\ LastTerm(a) >= LastTerm(b)
            ELSE \/ LastTerm(a) > LastTerm(b)
                 \/ LastTerm(a) = LastTerm(b) /\ Len(a) >= Len(b)
Prefix(l, k) == SubSeq(l, 1, k)
Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b
Top(S) == CHOOSE x \in S : \A y \in S : y <= x
Conflict(l, p) == \E j \in 1..Min(Len(l), Len(p)) : l[j] # p[j]
\* truncate only at a conflict, never shorten otherwise
Merge(l, p) == IF Conflict(l, p) \/ Len(p) > Len(l) THEN p ELSE l
Remember(i, new) == IF HasPast /\ Conflict(log[i], new)
                    THEN [past EXCEPT ![i] = @ \cup {log[i]}] ELSE past
HasEntry(l, e) == Len(l) >= e[1] /\ l[e[1]] = e[2]
Holds(i, e) == HasEntry(log[i], e)

(* ------------------------------- messages ----------------------------- *)
\* "P" proposal, "V" vote or sync answer, "A" append (the leader's log),
\* "K" ack up to idx, "H" holds the leader's configuration, "G" rejoin grant
\* May the message still change anything?
Useful(m, t, r, c, f) ==
  CASE m.m = "P" -> r[m.src] = "C" /\ t[m.src] = m.term
    [] m.m = "V" -> r[m.dst] = "C" /\ t[m.dst] = m.term
    [] m.m = "A" -> \E i \in Server : i # m.src /\ t[i] <= m.term
    [] m.m = "K" -> Breaks("W12") \/ (r[m.dst] = "L" /\ t[m.dst] = m.term)
    [] m.m = "H" -> r[m.dst] = "L" /\ t[m.dst] = m.term /\ c[m.dst] = m.cfg
    [] m.m = "G" -> (f[m.dst] \/ Breaks("W3"))
                    /\ (t[m.dst] <= m.term \/ Breaks("W5"))
\* an append of a longer log stands for the shorter ones (a receiver may take
\* any prefix of it), an ack of a greater index for the lesser ones
Stronger(x, y) ==
  IF x.m # y.m THEN FALSE
  ELSE IF x.m = "A" THEN x.src = y.src /\ x.term = y.term
                         /\ Len(x.log) > Len(y.log)
  ELSE IF x.m = "K" THEN x.src = y.src /\ x.dst = y.dst /\ x.term = y.term
                         /\ x.stamp = y.stamp /\ x.idx > y.idx
  ELSE FALSE
Clean(ms, t, r, c, f) ==
  LET u == {m \in ms : Useful(m, t, r, c, f)}
  IN  {m \in u : ~ \E x \in u : Stronger(x, m)}
Send(new) == msgs' = Clean(msgs \cup new, term', role', cfg', rec')

Votes(ms, c, t) == {m.src : m \in {x \in ms : x.m = "V" /\ x.term = t
                                                       /\ x.dst = c}}
\* the configurations that somebody may still adopt
Known(new) == {c \in registers \cup new : \E i \in Alive : Less(cfg'[i], c)}

Always == [j \in Server |-> <<0, 0>>]

Init ==
  /\ term = [i \in Server |-> 0]
  /\ cfg = [i \in Server |-> [t |-> 0, n |-> 0, v |-> Voters, o |-> {}]]
  /\ history = [i \in Server |-> 0]
  /\ role = [i \in Server |-> "F"]
  /\ log = [i \in Server |-> <<>>]
  /\ rec = [i \in Server |-> FALSE]
  /\ need = [i \in Server |-> 0]
  /\ since = [i \in Server |-> Always]
  /\ order = [i \in Server |-> {}]
  /\ msgs = {} /\ registers = {} /\ off = {}
  /\ committed = {} /\ gone = {} /\ elected = {} /\ failed = FALSE
  /\ past = [i \in Server |-> {}]
  /\ spent = [losses |-> 0, changes |-> 0, forces |-> 0, orders |-> 0]
  /\ at = 0

\* Is this the script's next step?
Step(name) == IF Script = <<>> THEN at' = at
              ELSE at < Len(Script) /\ Script[at + 1] = name /\ at' = at + 1

\* what ends with a role
Retire(i) == /\ need' = [need EXCEPT ![i] = 0]
             /\ since' = [since EXCEPT ![i] = Always]
             /\ order' = [order EXCEPT ![i] = {}]
Follow(i) == role' = [role EXCEPT ![i] = "F"] /\ Retire(i)

(* ------------------------------- election ----------------------------- *)
Answer(i, l, t) == [m |-> "V", term |-> t, src |-> i, dst |-> l,
                    log |-> log[i], history |-> history[i],
                    rec |-> rec[i] \/ (Has("marked") /\ i \in Witness)]

\* A forced election takes a term that no dead node can have led: it is above
\* a number that comes with the order, and every order has a greater one.
\* F2: it takes the next term.  F4: the number is that of the next history.
ForcedTerm(i) ==
  LET number == IF Breaks("F4") THEN (history[i] \div 10) + 1
                ELSE spent.orders + 1
  IN  IF Breaks("F2") THEN term[i] + 1 ELSE Max(term[i], 10 * number) + 1
NoDead(c, D) == Everyone(c) \ D
Wins(c, D, S) == Quorum(c, S) \/ (D # {} /\ NoDead(c, D) \subseteq S)

Stand(i, t, D) ==
  /\ i \in Everyone(cfg[i])
  /\ term' = [term EXCEPT ![i] = t]
  /\ role' = [role EXCEPT ![i] = "C"]
  /\ need' = [need EXCEPT ![i] = 0]
  /\ since' = [since EXCEPT ![i] = Always]
  /\ order' = [order EXCEPT ![i] = D]
  /\ elected' = IF Wins(cfg[i], D, {i}) THEN elected \cup {<<t, i>>}
                ELSE elected
  /\ UNCHANGED <<cfg, history, log, rec, registers, committed, ghosts, past>>
  /\ Send({[m |-> "P", term |-> t, src |-> i, cfg |-> cfg[i], dead |-> D],
           Answer(i, i, t)})

Campaign(i) ==
  /\ i \in Campaigners
  /\ term[i] % 10 < MaxTerm
  /\ Step(<<"campaign", i>>)
  /\ Stand(i, term[i] + 1, {})
  /\ UNCHANGED <<off, spent>>

\* W14: a vote whatever the candidate's configuration
Vote(i, m) ==
  /\ m.m = "P"
  /\ i \in Everyone(m.cfg)
  /\ m.term > term[i]
  /\ ~Less(m.cfg, cfg[i]) \/ Breaks("W14")
  /\ Step(<<"vote", i, m.src>>)
  /\ term' = [term EXCEPT ![i] = m.term]
  /\ Follow(i)
  /\ elected' = IF Wins(m.cfg, m.dead, Votes(msgs, m.src, m.term) \cup {i})
                THEN elected \cup {<<m.term, m.src>>} ELSE elected
  /\ UNCHANGED <<cfg, history, log, rec, registers, off, committed, ghosts,
                 past, spent>>
  /\ Send({Answer(i, m.src, m.term)})

Syncing(l) == role[l] = "C" /\ <<term[l], l>> \in elected

\* A node that did not vote for the elected leader answers its sync request.
\* S1: also when it knows a newer configuration
AnswerSync(i, l) ==
  /\ i # l /\ Syncing(l)
  /\ i \in Everyone(cfg[l])
  /\ term[l] >= term[i]
  /\ ~Less(cfg[l], cfg[i]) \/ Breaks("S1")
  /\ i \notin Votes(msgs, l, term[l])
  /\ Step(<<"answer", i, l>>)
  /\ term' = [term EXCEPT ![i] = term[l]]
  /\ Follow(i)
  /\ UNCHANGED <<cfg, history, log, rec, registers, off, committed, ghosts,
                 elected, past, spent>>
  /\ Send({Answer(i, l, term[l])})

(* Acks carry the stamp of the sender's configuration, so that those from    *)
(* before a node was removed, and deleted its log, are told from those after *)
(* it was taken back: an ack counts if its sender holds the configuration by *)
(* which it became a member, as far as this leader knows.  R1: they all do.  *)
Stamps == Has("wipe") /\ ~Breaks("R1")
StampOf(i) == IF Stamps THEN <<cfg[i].t, cfg[i].n>> ELSE <<0, 0>>
Since(S, c, before) ==
  [j \in Server |-> IF Stamps /\ j \in S THEN <<c.t, c.n>> ELSE before[j]]
InTime(l, m) == LET s == since[l][m.src]
                IN  \/ m.stamp[1] > s[1]
                    \/ m.stamp[1] = s[1] /\ m.stamp[2] >= s[2]

(* ------------------------------ sync phase ---------------------------- *)
Answers(l) == {m \in msgs : m.m = "V" /\ m.term = term[l] /\ m.dst = l}
\* the log an answer stands for; the leader's own is its present one
LogOf(l, m) == IF m.src = l THEN log[l] ELSE m.log
\* W2: recovering nodes count
Counts(m) == ~m.rec \/ Breaks("W2")
SyncSets(l) == {R \in SUBSET Answers(l) :
                  Quorum(cfg[l], {m.src : m \in {x \in R : Counts(x)}})}
\* the log of a recovering node may be chosen; it does not count for R
BestOf(l, R) ==
  LogOf(l, CHOOSE m \in R : \A x \in R : GE(LogOf(l, m), LogOf(l, x)))
Histories(l, R) == {history[l]} \cup {m.history : m \in R}

\* C3: the leader's configuration gets its term. W15: it does not.
Restamped(l) == IF Breaks("W15") \/ ~Changing THEN cfg[l]
                ELSE [cfg[l] EXCEPT !.t = term[l]]
Restamp(l) ==
  /\ Has("restamp") /\ Syncing(l)
  /\ SyncSets(l) # {}
  /\ cfg[l].t < term[l]
  /\ Step(<<"restamp", l>>)
  /\ cfg' = [cfg EXCEPT ![l] = Restamped(l)]
  /\ registers' = Known({Restamped(l)})
  /\ UNCHANGED <<term, history, role, log, rec, leading, off, committed,
                 ghosts, elected, past, spent>>
  /\ Send({})

\* The barrier is appended, the leader is ready.
Serve(l, best, c, h, D) ==
  LET new == Append(best, term[l])
  IN  /\ Len(new) <= MaxLen
      /\ log' = [log EXCEPT ![l] = new]
      /\ past' = Remember(l, new)
      /\ role' = [role EXCEPT ![l] = "L"]
      /\ rec' = [rec EXCEPT ![l] = FALSE]
      /\ need' = [need EXCEPT ![l] = Len(new)]
      /\ since' = [since EXCEPT ![l] = Since(Server, c, Always)]
      /\ order' = [order EXCEPT ![l] = D]
      /\ cfg' = [cfg EXCEPT ![l] = c]
      /\ history' = [history EXCEPT ![l] = h]
      /\ registers' = Known({c})
      /\ UNCHANGED <<term, elected, off>>
      /\ Send({[m |-> "A", term |-> term[l], src |-> l, log |-> new,
                history |-> h]})

\* W7: an elected leader serves from its own log
CompleteSync(l) ==
  /\ Syncing(l)
  /\ Has("restamp") => cfg[l] = Restamped(l)
  /\ Step(<<"ready", l>>)
  /\ IF Breaks("W7") THEN Serve(l, log[l], Restamped(l), history[l], {})
     ELSE \E R \in SyncSets(l) :
            Serve(l, BestOf(l, R), Restamped(l), Top(Histories(l, R)), {})
  /\ UNCHANGED <<committed, ghosts, spent>>

FetchPart(l) ==
  /\ Has("partial") /\ Syncing(l)
  /\ \E R \in SyncSets(l) : \E k \in 1..Len(BestOf(l, R)) :
       LET new == Merge(log[l], Prefix(BestOf(l, R), k))
       IN  /\ new # log[l]
           /\ Step(<<"fetch", l, k>>)
           /\ log' = [log EXCEPT ![l] = new]
           /\ past' = Remember(l, new)
  /\ UNCHANGED <<durable, role, rec, leading, msgs, registers, off,
                 committed, ghosts, elected, spent>>

(* ------------------------------ replication --------------------------- *)
ClientAppend(l) ==
  /\ role[l] = "L"
  /\ Len(log[l]) < MaxLen
  /\ Step(<<"propose", l>>)
  /\ log' = [log EXCEPT ![l] = Append(@, term[l])]
  /\ UNCHANGED <<durable, role, rec, leading, registers, off, committed,
                 ghosts, elected, past, spent>>
  /\ Send({[m |-> "A", term |-> term[l], src |-> l, log |-> log'[l],
            history |-> history[l]]})

\* k: the message as if it carried only the first k entries
\* W8a: normal again upon an append.  W11: ack the own last index.
HandleAppend(i, m) ==
  /\ m.m = "A" /\ i # m.src
  /\ m.term >= term[i]
  /\ \E k \in 0..Len(m.log) :
       LET new == IF i \in Witness THEN log[i]
                  ELSE Merge(log[i], Prefix(m.log, k))
           normal == ~rec[i] \/ Breaks("W8a")
           ack == [m |-> "K", term |-> m.term, src |-> i, dst |-> m.src,
                   stamp |-> StampOf(i),
                   idx |-> IF Breaks("W11") THEN Len(new) ELSE k]
       IN  /\ Step(<<"append", i, m.src, k>>)
           /\ log' = [log EXCEPT ![i] = new]
           /\ past' = Remember(i, new)
           /\ rec' = [rec EXCEPT ![i] = ~normal]
           /\ term' = [term EXCEPT ![i] = m.term]
           /\ history' = [history EXCEPT ![i] = Max(@, m.history)]
           /\ Follow(i)
           /\ UNCHANGED cfg
           /\ Send(IF (normal \/ ~AckShy) /\ ack.idx > 0 THEN {ack} ELSE {})
  /\ UNCHANGED <<registers, off, committed, ghosts, elected, spent>>

\* W12: acks of older terms count
AckedBy(l, k) ==
  {l} \cup {m.src : m \in {x \in msgs :
     /\ x.m = "K" /\ x.idx >= k /\ x.dst = l
     /\ x.term = term[l] \/ (Breaks("W12") /\ x.term < term[l])
     /\ InTime(l, x)}}

\* W6: entries of older terms commit by counting
AdvanceCommit(l) ==
  /\ role[l] = "L"
  /\ \E k \in 1..Len(log[l]) :
       /\ log[l][k] = term[l] \/ Breaks("W6")
       /\ Quorum(cfg[l], AckedBy(l, k))
       /\ Step(<<"commit", l, k>>)
       /\ LET before == {x \in committed : x[3] <= term[l]}
              new == {<<j, log[l][j], term[l], history[l]>> :
                        j \in {j \in 1..k : ~ \E x \in before :
                                 x[1] = j /\ x[2] = log[l][j]}}
          IN  \* the first commit of an entry is the one that counts
              /\ new # {}
              /\ committed' = committed \cup new
  /\ UNCHANGED <<durable, role, log, rec, leading, msgs, registers, off,
                 ghosts, elected, past, spent>>

\* Cession, and with it a forced transfer: the successor may be any node,
\* however far behind, as Campaign is open to all.
Cede(l) ==
  /\ Has("cede") /\ (role[l] = "L" \/ Syncing(l))
  /\ Step(<<"cede", l>>)
  /\ Follow(l)
  /\ UNCHANGED <<durable, log, rec, registers, off, committed, ghosts,
                 elected, past, spent>>
  /\ Send({})

(* ------------------------- power loss and rejoin ---------------------- *)
Versions(i) == UNION {{Prefix(l, k) : k \in 0..Len(l)} :
                        l \in {log[i]} \cup past[i]}

\* W1: the loss is not noticed.  W4: it takes the term back too.
Lose(i) ==
  /\ spent.losses < MaxLoss
  /\ spent' = [spent EXCEPT !.losses = @ + 1]
  /\ \E v \in Versions(i) :
       \E t \in (IF Breaks("W4") THEN 0..term[i] ELSE {term[i]}) :
         /\ Step(<<"lose", i, Len(v)>>)
         /\ log' = [log EXCEPT ![i] = v]
         /\ term' = [term EXCEPT ![i] = t]
  /\ Follow(i)
  /\ rec' = [rec EXCEPT ![i] = ~Breaks("W1")]
  /\ UNCHANGED <<cfg, history, registers, off, committed, ghosts, elected,
                 past>>
  \* W3: a grant names no epoch, so those of an earlier loss are taken
  /\ msgs' = Clean({m \in msgs : Breaks("W3") \/ m.m # "G" \/ m.dst # i},
                   term', role', cfg', rec')

\* W10: a leader that is still syncing grants
Grant(l, i) ==
  /\ rec[i] /\ i # l
  /\ Broken \cap {"W8a", "W9"} = {}
  /\ role[l] = "L" \/ (Breaks("W10") /\ Syncing(l))
  /\ ~ \E x \in msgs : x.m = "G" /\ x.dst = i /\ x.term = term[l]
                                 /\ x.idx <= Len(log[l])
  /\ Step(<<"grant", l, i>>)
  /\ UNCHANGED <<durable, role, log, rec, leading, registers, off,
                 committed, ghosts, elected, past, spent>>
  /\ Send({[m |-> "G", term |-> term[l], dst |-> i, idx |-> Len(log[l]),
            lt |-> LastTerm(log[l])]})

\* Log matching makes comparing that one entry enough.
\* W5: from a leader of an older term.  W8: before the log is there.
HandleGrant(i, g) ==
  /\ g.m = "G" /\ g.dst = i
  /\ rec[i]
  /\ g.term >= term[i] \/ Breaks("W5")
  /\ IF g.idx = 0 \/ Breaks("W8") THEN TRUE
     ELSE HasEntry(log[i], <<g.idx, g.lt>>)
  /\ Step(<<"rejoin", i>>)
  /\ rec' = [rec EXCEPT ![i] = FALSE]
  /\ term' = [term EXCEPT ![i] = Max(@, g.term)]
  /\ IF g.term > term[i] THEN Follow(i) ELSE UNCHANGED <<role, leading>>
  /\ UNCHANGED <<cfg, history, log, registers, off, committed, ghosts,
                 elected, past, spent>>
  /\ Send({})

\* W9: normal again with the log of any one node
RejoinPeer(i, j) ==
  /\ Breaks("W9")
  /\ i # j /\ rec[i] /\ ~rec[j] /\ term[j] >= term[i]
  /\ Step(<<"copy", i, j>>)
  /\ log' = [log EXCEPT ![i] = Merge(@, log[j])]
  /\ past' = Remember(i, Merge(log[i], log[j]))
  /\ rec' = [rec EXCEPT ![i] = FALSE]
  /\ term' = [term EXCEPT ![i] = term[j]]
  /\ Follow(i)
  /\ UNCHANGED <<cfg, history, registers, off, committed, ghosts, elected,
                 spent>>
  /\ Send({})

(* ------------------------------ membership ---------------------------- *)
\* C1: a greater stamp is adopted; whoever leads or stands steps down.
Learn(i, c) ==
  /\ Less(cfg[i], c)
  /\ Step(<<"learn", i, c.v>>)
  /\ cfg' = [cfg EXCEPT ![i] = c]
  /\ term' = [term EXCEPT ![i] = Max(@, c.t)]
  /\ Follow(i)
  /\ registers' = Known({})
  /\ UNCHANGED <<history, log, rec, off, committed, ghosts, elected, past,
                 spent>>
  /\ Send({})

\* A node tells the leader that it holds its configuration, in its term.
Hold(i, l) ==
  /\ Changing /\ i # l /\ role[l] = "L"
  /\ term[l] >= term[i]
  /\ ~Less(cfg[l], cfg[i])
  /\ i \in Everyone(cfg[l])
  /\ LET h == [m |-> "H", term |-> term[l], src |-> i, dst |-> l,
               cfg |-> cfg[l]]
     IN  /\ h \notin msgs
         /\ Step(<<"hold", i, l>>)
         /\ term' = [term EXCEPT ![i] = term[l]]
         /\ cfg' = [cfg EXCEPT ![i] = cfg[l]]
         /\ Follow(i)
         /\ registers' = Known({})
         /\ UNCHANGED <<history, log, rec, off, committed, ghosts, elected,
                        past, spent>>
         /\ Send({h})

HeldBy(l) == {l} \cup {m.src : m \in {x \in msgs :
                x.m = "H" /\ x.dst = l /\ x.term = term[l] /\ x.cfg = cfg[l]}}

\* C4. W16, J2: not held by a quorum. W17, J3: what is needed is not.
MayChange(l, skipHeld, skipLog) ==
  /\ Changing /\ role[l] = "L"
  /\ Quorum(cfg[l], HeldBy(l)) \/ Breaks(skipHeld)
  /\ Quorum(cfg[l], AckedBy(l, need[l])) \/ Breaks(skipLog)

Enter(l, v, o, D) ==
  LET c == [t |-> term[l], n |-> cfg[l].n + 1, v |-> v, o |-> o]
      mine == {e[1] : e \in {x \in committed : x[3] = term[l]}}
  IN  /\ cfg' = [cfg EXCEPT ![l] = c]
      /\ need' = [need EXCEPT ![l] = Top({@} \cup mine)]
      /\ since' = [since EXCEPT ![l] =
                     Since(Everyone(c) \ Everyone(cfg[l]), c, @)]
      /\ order' = [order EXCEPT ![l] = D]
      /\ registers' = Known({c})
      /\ UNCHANGED <<term, history, role, log, rec, off, committed, ghosts,
                     elected, past>>
      /\ Send({})

Change(l) ==
  /\ spent.changes < MaxChange
  /\ cfg[l].o = {} /\ order[l] = {}
  /\ MayChange(l, "W16", "W17")
  /\ spent' = [spent EXCEPT !.changes = @ + 1]
  /\ \/ /\ Has("single")
        /\ \E j \in Server \ {l} :
             LET v == IF j \in cfg[l].v THEN cfg[l].v \ {j}
                                        ELSE cfg[l].v \cup {j}
             IN  Step(<<"change", l, v>>) /\ Enter(l, v, {}, {})
     \/ \E v \in Targets \ {cfg[l].v} :
           Step(<<"joint", l, v>>) /\ Enter(l, v, cfg[l].v, {})

LeaveJoint(l) ==
  /\ cfg[l].o # {}
  /\ l \in cfg[l].v
  /\ MayChange(l, "J2", "J3")
  /\ Step(<<"leave", l>>)
  /\ Enter(l, cfg[l].v, {}, order[l])
  /\ UNCHANGED spent

\* A node that is no member deletes its log; what is durable stays.
\* R2: it forgets its term as well
Wipe(i) ==
  /\ Has("wipe") /\ i \notin Everyone(cfg[i])
  /\ log[i] # <<>> \/ rec[i]
  /\ Step(<<"wipe", i>>)
  /\ log' = [log EXCEPT ![i] = <<>>]
  /\ past' = [past EXCEPT ![i] = {}]
  /\ rec' = [rec EXCEPT ![i] = FALSE]
  /\ term' = IF Breaks("R2") THEN [term EXCEPT ![i] = 0] ELSE term
  /\ Follow(i)
  /\ UNCHANGED <<cfg, history, registers, off, committed, ghosts, elected,
                 spent>>
  /\ Send({})

(* --------------------------- forced recovery -------------------------- *)
\* The leader goes on with the best of all answers: of every voter, or of
\* every voter that the operator did not name.  The new history is the next
\* one, or has the order's number.  F3: the history stays.
ForceSync(l) ==
  /\ Syncing(l)
  /\ spent.forces < MaxForce
  /\ order[l] # {} \/ Has("all")
  /\ LET R == Answers(l)
         D == order[l]
         best == BestOf(l, R)
         c == Restamped(l)
         next == Top(Histories(l, R)) + 1
         h == IF Breaks("F3") THEN next - 1
              ELSE IF D = {} THEN next ELSE Max(next, 10 * (term[l] \div 10))
         lost == {e \in committed : ~HasEntry(best, e)}
     IN  /\ NoDead(cfg[l], D) \subseteq {m.src : m \in R}
         /\ Step(<<"force", l>>)
         /\ IF Breaks("F5") /\ D # {}
            THEN Serve(l, best, [t |-> term[l], n |-> c.n + 1,
                                 v |-> NoDead(c, D), o |-> {}], h, {})
            ELSE Serve(l, best, c, h, D)
         /\ committed' = committed \ lost
         /\ gone' = gone \cup lost
         /\ failed' = \/ failed
                      \/ \E e \in lost, m \in R : HasEntry(LogOf(l, m), e)
                      \* or there was a newer configuration before this term
                      \/ D = {} /\ \E j \in Alive : /\ Less(cfg[l], cfg[j])
                                                   /\ cfg[j].t < term[l]
  /\ spent' = [spent EXCEPT !.forces = @ + 1]

\* The dead are dropped once a majority of the others has everything, and the
\* configuration of this term: a majority of fewer could else do without those
\* who have it.  F5: with the history, at once.
DropDead(l) ==
  LET rest == NoDead(cfg[l], order[l])
  IN  /\ role[l] = "L" /\ order[l] # {}
      /\ Most(rest, HeldBy(l)) /\ Most(rest, AckedBy(l, need[l]))
      /\ Step(<<"drop", l>>)
      /\ Enter(l, rest, {}, {})
      /\ UNCHANGED spent

\* The operator turns D off for good and orders i to go on without them.
\* F1: at a node whose configuration is not the newest of those left
Order(i) ==
  /\ spent.forces < MaxForce /\ spent.orders < MaxForce
  /\ i \in Campaigners
  /\ role[i] # "L"
  /\ ForcedTerm(i) % 10 \in 1..MaxTerm
  /\ \E D \in Dead :
       /\ i \notin D /\ D \cap Everyone(cfg[i]) # {}
       /\ Breaks("F1") \/ \A j \in Alive \ D : ~Less(cfg[i], cfg[j])
       /\ Step(<<"order", i>>)
       /\ off' = off \cup D
       /\ Stand(i, ForcedTerm(i), D \cap Everyone(cfg[i]))
  /\ spent' = [spent EXCEPT !.orders = @ + 1]

Next ==
  \/ \E i \in Alive :
       \/ Campaign(i) \/ Restamp(i) \/ CompleteSync(i) \/ FetchPart(i)
       \/ ClientAppend(i) \/ AdvanceCommit(i) \/ Cede(i) \/ Lose(i)
       \/ Change(i) \/ LeaveJoint(i) \/ Wipe(i)
       \/ ForceSync(i) \/ DropDead(i) \/ Order(i)
  \/ \E i, j \in Alive : \/ AnswerSync(i, j) \/ Grant(i, j)
                         \/ RejoinPeer(i, j) \/ Hold(i, j)
  \/ \E i \in Alive : \E m \in msgs :
       Vote(i, m) \/ HandleAppend(i, m) \/ HandleGrant(i, m)
  \/ \E i \in Alive : \E c \in registers : Learn(i, c)

Spec == Init /\ [][Next]_vars

(* ------------------------------ invariants ---------------------------- *)
\* At most one leader per term.
ElectionSafety == \A x, y \in elected : x[1] = y[1] => x = y

LogMatching ==
  \A i, j \in Server : \A k \in 1..Min(Len(log[i]), Len(log[j])) :
     log[i][k] = log[j][k] => Prefix(log[i], k) = Prefix(log[j], k)

\* A leader that serves has everything acknowledged up to its term.
LeaderCompleteness ==
  \A l \in Alive : role[l] = "L" =>
     \A e \in committed : e[3] <= term[l] => Holds(l, e)

\* Never are two different entries acknowledged at one index of one history.
StateMachineSafety ==
  \A x, y \in committed \cup gone :
     x[1] = y[1] /\ x[4] = y[4] => x[2] = y[2]

\* Every quorum of nodes that do not recover has every acknowledged entry.
\* (For one configuration only.)
QuorumHolds ==
  \A S \in SUBSET {i \in Voters : ~rec[i]} : Most(Voters, S) =>
     \A e \in committed : \E i \in S : Holds(i, e)

\* A forced recovery keeps what any of those that answered has, and where it is
\* nobody's order, there are no other voters who could have more.
ForceKeeps == ~failed

\* Once a leader serves, leaders of lesser terms commit nothing more.
OneServes ==
  \A k, l \in Alive :
    (role[k] = "L" /\ role[l] = "L" /\ term[k] < term[l]) =>
       ~Quorum(cfg[k], {i \in Alive : term[i] <= term[k]})

(* ----------- reached? (to be refuted: nothing is held vacuously) ------ *)
NeverRejoined == ~ \E i \in Server : /\ spent.losses > 0 /\ ~rec[i]
                                     /\ role[i] = "F" /\ Len(log[i]) = MaxLen
                                     /\ term[i] = MaxTerm
NeverLeftJoint == ~ \E i \in Alive : /\ role[i] = "L" /\ cfg[i].v \in Targets
                                     /\ cfg[i].o = {} /\ spent.changes > 0
                                     /\ Quorum(cfg[i], AckedBy(i, need[i]))
NeverForced == ~ \E i \in Alive : role[i] = "L" /\ history[i] > 0
                    /\ \E e \in committed : e[4] > 0
ScriptStops == Script = <<>> \/ at < Len(Script)

\* Nodes are interchangeable as far as the constants do not tell them apart.
\* (TLC refuses a symmetry of the identity alone: switch it off then.)
Symmetry ==
  LET Image(p, S) == {p[i] : i \in S}
  IN  {p \in Permutations(Server) :
         /\ Image(p, Voters) = Voters
         /\ Image(p, Campaigners) = Campaigners
         /\ Image(p, Witness) = Witness
         /\ {Image(p, S) : S \in Targets} = Targets
         /\ {Image(p, S) : S \in Dead} = Dead}
=============================================================================
