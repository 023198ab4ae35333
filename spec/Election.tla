------------------------------- MODULE Election -------------------------------
(***************************************************************************)
(* Who may lead, and when: scouting, sticky leaders, cession, transfer.    *)
(*                                                                         *)
(* SyncLog lets every node campaign at any time, so safety does not need   *)
(* what is here.  This model is about the two things that scouting and     *)
(* stickiness are for, and the price that they must not have:              *)
(*   Stable    a leader that a majority follows stays, whatever the others *)
(*             believe, unless it cedes or something fails;                *)
(*   NotStuck  while a majority is up and nobody leads, somebody can take  *)
(*             a step towards an election.                                 *)
(* There is no log: a lagging successor is as good as any other here, and  *)
(* its sync phase is SyncLog's.  All nodes are voters; a configuration is  *)
(* its stamp.                                                              *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS Server, Nobody, MaxTerm,
          MaxFaults,  \* crashes, wrong suspicions and cessions
          MaxStamp,   \* configurations at first: stamps 0..MaxStamp
          Broken      \* rules that are broken on purpose

VARIABLES
  term, stamp,  \* durable
  up,           \* nodes that run
  role,         \* "F" follower, "S" scout, "C" candidate, "L" leader
  leader,       \* whom a follower follows in its term
  wary,         \* a follower suspects its leader wrongly
  grants,       \* of a scout: who would vote
  loyal,        \* of a scout: leaderships that others are loyal to
  proof,        \* of a scout or candidate: the ceded leadership it shows
  heard,        \* the newest cession heard of
  votes,        \* of a candidate
  proposals, cessions,   \* messages: <<...>>, never lost once sent
  elected, over,         \* ghosts: leaderships that began, that ended
  faults                 \* ghost: budget

round == <<grants, loyal, proof, votes>>
vars == <<term, stamp, up, role, leader, wary, round, heard, proposals,
          cessions, elected, over, faults>>

None == <<0, Nobody>>
Most(S) == 2 * Cardinality(S) > Cardinality(Server)
Max(a, b) == IF a > b THEN a ELSE b
Breaks(e) == e \in Broken

Init ==
  /\ term = [i \in Server |-> 0]
  /\ stamp \in [Server -> 0..MaxStamp]
  /\ up = Server
  /\ role = [i \in Server |-> "F"]
  /\ leader = [i \in Server |-> Nobody]
  /\ wary = [i \in Server |-> FALSE]
  /\ grants = [i \in Server |-> {}] /\ loyal = [i \in Server |-> {}]
  /\ proof = [i \in Server |-> None] /\ heard = [i \in Server |-> None]
  /\ votes = [i \in Server |-> {}]
  /\ proposals = {} /\ cessions = {} /\ elected = {} /\ over = {}
  /\ faults = 0

(* A node knows whether a NODE runs, not whether it still leads: liveness   *)
(* is shared by all groups of a node pair.                                  *)
FollowsLiving(j) == leader[j] # Nobody /\ leader[j] \in up /\ ~wary[j]
\* May j not vote for c, who shows p?  E2: followers are not loyal.
\* E3: a cession's term is not compared.
Loyal(j, c, p) ==
  \/ role[j] = "L"
  \/ /\ role[j] = "F" /\ FollowsLiving(j) /\ leader[j] # c
     /\ ~Breaks("E2")
     /\ IF Breaks("E3") THEN p[2] # leader[j] ELSE p # <<term[j], leader[j]>>

EndRound(i) == /\ grants' = [grants EXCEPT ![i] = {}]
               /\ loyal' = [loyal EXCEPT ![i] = {}]
               /\ proof' = [proof EXCEPT ![i] = None]
               /\ votes' = [votes EXCEPT ![i] = {}]
\* i is a follower of l, or of nobody, in term t
Become(i, t, l) ==
  /\ term' = [term EXCEPT ![i] = t]
  /\ role' = [role EXCEPT ![i] = "F"]
  /\ leader' = [leader EXCEPT ![i] = l]
  /\ wary' = [wary EXCEPT ![i] = FALSE]
  /\ over' = IF role[i] = "L" THEN over \cup {<<term[i], i>>} ELSE over
  /\ EndRound(i)

(* ------------------------------ scouting ------------------------------ *)
Begin(i, p) == /\ grants' = [grants EXCEPT ![i] = {i}]
               /\ loyal' = [loyal EXCEPT ![i] = {}]
               /\ proof' = [proof EXCEPT ![i] = p]
               /\ votes' = [votes EXCEPT ![i] = {}]

Scout(i) ==
  /\ role[i] = "F" /\ ~FollowsLiving(i)
  /\ term[i] < MaxTerm
  /\ role' = [role EXCEPT ![i] = "S"]
  /\ leader' = [leader EXCEPT ![i] = Nobody]
  /\ wary' = [wary EXCEPT ![i] = FALSE]
  /\ Begin(i, heard[i])
  /\ UNCHANGED <<term, stamp, up, heard, proposals, cessions, elected, over,
                 faults>>

\* One scout and its answer.  Nothing changes at j.  E4: j's term rises.
Ask(i, j) ==
  LET next == term[i] + 1
      granted == next > term[j] /\ stamp[i] >= stamp[j]
                 /\ ~Loyal(j, i, proof[i])
      \* E5, E6: a refusal does not tell the term, the configuration
      t == IF Breaks("E5") THEN term[i]
           ELSE IF term[j] >= next THEN term[j] ELSE term[i]
      s == IF Breaks("E6") THEN stamp[i] ELSE Max(stamp[i], stamp[j])
      known == IF FollowsLiving(j) THEN {<<term[j], leader[j]>>} ELSE {}
  IN  /\ i # j /\ role[i] = "S" /\ j \notin grants[i]
      /\ IF granted
         THEN /\ grants' = [grants EXCEPT ![i] = @ \cup {j}]
              /\ UNCHANGED <<stamp, loyal, proof, votes>>
              /\ term' = IF Breaks("E4") THEN [term EXCEPT ![j] = next]
                         ELSE term
         ELSE /\ t # term[i] \/ s # stamp[i] \/ ~(known \subseteq loyal[i])
              /\ IF t # term[i] \/ s # stamp[i] THEN Begin(i, proof[i])
                 ELSE \* whoever is said to lead is asked (again)
                      /\ loyal' = [loyal EXCEPT ![i] = @ \cup known]
                      /\ grants' = [grants EXCEPT ![i] =
                           IF Breaks("E7") THEN @ ELSE @ \ {leader[j]}]
                      /\ UNCHANGED <<proof, votes>>
              /\ term' = [term EXCEPT ![i] = t]
              /\ stamp' = [stamp EXCEPT ![i] = s]
  /\ UNCHANGED <<up, role, leader, wary, heard, proposals, cessions, elected,
                 over, faults>>

\* Others are loyal to somebody who, asked after that, would vote for i, so does
\* not lead: its cession was lost, and this is the proof.
\* E7: also when it was asked before, and may have been elected since.
Conclude(i, c) ==
  /\ role[i] = "S" /\ c \in loyal[i] /\ c[2] \in grants[i] /\ proof[i] # c
  /\ Begin(i, c)
  /\ UNCHANGED <<term, stamp, up, role, leader, wary, heard, proposals,
                 cessions, elected, over, faults>>

(* ------------------------------ election ------------------------------ *)
Stand(i, t, p) ==
  /\ term' = [term EXCEPT ![i] = t]
  /\ role' = [role EXCEPT ![i] = "C"]
  /\ leader' = [leader EXCEPT ![i] = Nobody]
  /\ wary' = [wary EXCEPT ![i] = FALSE]
  /\ grants' = [grants EXCEPT ![i] = {}]
  /\ loyal' = [loyal EXCEPT ![i] = {}]
  /\ proof' = [proof EXCEPT ![i] = p]
  /\ votes' = [votes EXCEPT ![i] = {i}]
  /\ proposals' = proposals \cup {<<t, i, stamp[i], p>>}

\* E1: without having scouted
Propose(i) ==
  /\ term[i] < MaxTerm
  /\ \/ role[i] = "S" /\ Most(grants[i])
     \/ role[i] = "F" /\ ~FollowsLiving(i) /\ Breaks("E1")
  /\ Stand(i, term[i] + 1, proof[i])
  /\ UNCHANGED <<stamp, up, heard, cessions, elected, over, faults>>

Vote(j, m) ==
  LET c == m[2] IN
  /\ m[1] > term[j] /\ m[3] >= stamp[j]
  /\ ~Loyal(j, c, m[4])
  /\ term' = [term EXCEPT ![j] = m[1]]
  /\ role' = [role EXCEPT ![j] = "F"]
  /\ leader' = [leader EXCEPT ![j] = Nobody]
  /\ wary' = [wary EXCEPT ![j] = FALSE]
  /\ grants' = [grants EXCEPT ![j] = {}]
  /\ loyal' = [loyal EXCEPT ![j] = {}]
  /\ proof' = [proof EXCEPT ![j] = None]
  /\ votes' = [votes EXCEPT ![j] = {},
                 ![c] = IF role[c] = "C" /\ term[c] = m[1] /\ c \in up
                        THEN @ \cup {j} ELSE @]
  /\ UNCHANGED <<stamp, up, heard, proposals, cessions, elected, over, faults>>

Win(i) ==
  /\ role[i] = "C" /\ Most(votes[i])
  /\ role' = [role EXCEPT ![i] = "L"]
  /\ elected' = elected \cup {<<term[i], i>>}
  /\ EndRound(i)
  /\ UNCHANGED <<term, stamp, up, leader, wary, heard, proposals, cessions,
                 over, faults>>

\* A candidate whose time is over scouts again.
GiveUp(i) ==
  /\ role[i] = "C" /\ ~Most(votes[i]) /\ term[i] < MaxTerm
  /\ Become(i, term[i], Nobody)
  /\ UNCHANGED <<stamp, up, heard, proposals, cessions, elected, faults>>

\* A leader's or candidate's message is refused by a node that knows more.
Refused(i, j) ==
  /\ role[i] \in {"C", "L"}
  /\ term[j] > term[i] \/ stamp[j] > stamp[i]
  /\ Become(i, Max(term[i], term[j]), Nobody)
  /\ stamp' = [stamp EXCEPT ![i] = Max(@, stamp[j])]
  /\ UNCHANGED <<up, heard, proposals, cessions, elected, faults>>

\* A leader's message arrives.
Follow(j, l) ==
  /\ j # l /\ role[l] = "L"
  /\ term[l] >= term[j] /\ stamp[l] >= stamp[j]
  /\ heard[j] # <<term[l], l>>
  /\ leader[j] # l \/ term[j] # term[l]
  /\ role[j] # "L" \/ term[j] < term[l]
  /\ Become(j, term[l], l)
  /\ stamp' = [stamp EXCEPT ![j] = stamp[l]]
  /\ UNCHANGED <<up, heard, proposals, cessions, elected, faults>>

(* ------------------------------- cession ------------------------------ *)
\* For good.  The message may be lost.  With a successor: a transfer.
Cede(l, s, lost) ==
  /\ role[l] = "L" /\ faults < MaxFaults
  /\ faults' = faults + 1
  /\ s # l
  /\ Become(l, term[l], Nobody)
  /\ heard' = [heard EXCEPT ![l] = <<term[l], l>>]
  /\ cessions' = IF lost THEN cessions ELSE cessions \cup {<<term[l], l, s>>}
  /\ UNCHANGED <<stamp, up, proposals, elected>>

\* The successor stands at once, with the cession as its proof.
HearCession(j, c) ==
  LET ceded == <<c[1], c[2]>> IN
  /\ j # c[2] /\ c[1] >= term[j] /\ heard[j] # ceded
  /\ c[1] > term[j] \/ (role[j] \in {"F", "S"} /\ leader[j] \in {c[2], Nobody})
  /\ heard' = [heard EXCEPT ![j] = ceded]
  /\ IF c[3] = j /\ c[1] < MaxTerm
     THEN /\ Stand(j, c[1] + 1, ceded)
          /\ over' = IF role[j] = "L" THEN over \cup {<<term[j], j>>} ELSE over
     ELSE /\ Become(j, c[1], Nobody)
          /\ UNCHANGED proposals
  /\ UNCHANGED <<stamp, up, cessions, elected, faults>>

(* ------------------------------- faults ------------------------------- *)
Crash(i) ==
  /\ faults < MaxFaults
  /\ faults' = faults + 1
  /\ up' = up \ {i}
  /\ Become(i, term[i], Nobody)
  /\ heard' = [heard EXCEPT ![i] = None]
  /\ UNCHANGED <<stamp, proposals, cessions, elected>>

\* A process that just started leads nothing, and that is noticed.
Restart(i) ==
  /\ up' = up \cup {i}
  /\ cessions' = cessions \cup {<<term[i], i, Nobody>>}
  /\ UNCHANGED <<term, stamp, role, leader, wary, round, heard, proposals,
                 elected, over, faults>>

Doubt(j) ==
  /\ leader[j] # Nobody /\ ~wary[j] /\ faults < MaxFaults
  /\ faults' = faults + 1
  /\ wary' = [wary EXCEPT ![j] = TRUE]
  /\ UNCHANGED <<term, stamp, up, role, leader, round, heard, proposals,
                 cessions, elected, over>>

Progress ==
  \/ \E i \in up : Scout(i) \/ Propose(i) \/ Win(i) \/ GiveUp(i)
  \/ \E i, j \in up : Ask(i, j) \/ Refused(i, j) \/ Follow(i, j)
  \/ \E i \in up : \E c \in loyal[i] : Conclude(i, c)
  \/ \E j \in up : \E m \in proposals : Vote(j, m)
  \/ \E j \in up : \E c \in cessions : HearCession(j, c)
Fault ==
  \/ \E l \in up, s \in Server \cup {Nobody}, lost \in BOOLEAN :
       Cede(l, s, lost)
  \/ \E i \in up : Crash(i) \/ Doubt(i)
  \/ \E i \in Server \ up : Restart(i)
Next == Progress \/ Fault
Spec == Init /\ [][Next]_vars

(* ----------------------------- properties ----------------------------- *)
ElectionSafety == \A x, y \in elected : x[1] = y[1] => x = y

CessionFinal == \A l \in Server : role[l] = "L" => <<term[l], l>> \notin over

\* No leadership that goes on is shown to be over.
ProofTrue ==
  \A i, l \in Server : role[l] = "L" => proof[i] # <<term[l], l>>

\* A majority follows l, without doubt, and none of it promised another
\* candidate a vote or showed it that l had ceded.
Settled(l) ==
  /\ l \in up /\ role[l] = "L"
  /\ \A i \in Server : term[i] <= term[l] /\ stamp[i] <= stamp[l]
  /\ LET M == {l} \cup {j \in up : leader[j] = l /\ term[j] = term[l]
                                   /\ FollowsLiving(j)}
     IN  Most(M) /\ \A i \in Server : grants[i] \cap M = {}
Stable == [][\A l \in Server : Settled(l) /\ faults' = faults => Settled(l)']_vars

NotStuck ==
  ( /\ Most(up) /\ \A i \in up : term[i] < MaxTerm
    /\ ~ \E l \in up : role[l] = "L" ) => ENABLED Progress

Symmetry == Permutations(Server)

\* reached? (to be refuted)
NeverTransferred ==
  ~ \E l \in up : role[l] = "L" /\ \E c \in cessions : c[3] = l
                                                       /\ c[1] + 1 = term[l]
=============================================================================
