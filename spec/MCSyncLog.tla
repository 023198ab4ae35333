------------------------------ MODULE MCSyncLog ------------------------------
(***************************************************************************)
(* What TLC needs to run SyncLog: names for the nodes, and scripts.  A     *)
(* script is the one counterexample that is wanted, step by step: it runs  *)
(* in a second where a search takes minutes, or would never end.  With the *)
(* rule in place a step of it is not enabled (ScriptStops).                *)
(***************************************************************************)
EXTENDS SyncLog

CONSTANTS n1, n2, n3, n4, n5

NoScript == <<>>

Twice(i) == <<<<"campaign", i>>, <<"campaign", i>>>>
\* i leads its next term with the vote of j, and appends its barrier
Lead(i, j) == <<<<"campaign", i>>, <<"vote", j, i>>, <<"ready", i>>>>

\* n2 rejoins, loses its tail again, and the old grant arrives once more
ScriptW3 ==
  Lead(n1, n2) \o
  << <<"lose", n2, 0>>, <<"grant", n1, n2>>, <<"append", n2, n1, 1>>,
     <<"rejoin", n2>>,
     <<"propose", n1>>, <<"append", n2, n1, 2>>, <<"commit", n1, 2>>,
     <<"lose", n2, 1>>, <<"rejoin", n2>> >> \o
  Lead(n2, n3)

\* n3 loses what it acknowledged to n2 in term 2 and rejoins by the word of
\* n1, who led term 1 and knows nothing of it
ScriptW5 ==
  Lead(n1, n3) \o
  << <<"append", n3, n1, 1>>, <<"campaign", n2>> >> \o Lead(n2, n3) \o
  << <<"append", n3, n2, 2>>, <<"commit", n2, 2>>, <<"lose", n3, 1>>,
     <<"grant", n1, n3>>, <<"rejoin", n3>>, <<"campaign", n1>> >> \o
  Lead(n1, n3)

\* n3 counts copies of an entry of term 1; what n2 had of term 2 beats it
ScriptW6 ==
  Lead(n1, n3) \o << <<"campaign", n2>> >> \o Lead(n2, n3) \o Lead(n3, n1) \o
  << <<"append", n1, n3, 1>>, <<"commit", n3, 1>> >> \o Lead(n1, n2)

\* n1 is told by n2, who has not synced, that the empty log is all there is
ScriptW10 ==
  Lead(n1, n3) \o
  << <<"append", n3, n1, 1>>, <<"commit", n1, 1>>, <<"lose", n1, 0>> >> \o
  Twice(n2) \o
  << <<"vote", n1, n2>>, <<"grant", n2, n1>>, <<"rejoin", n1>> >> \o
  Lead(n2, n1)

\* n2 acknowledged index 2 to n1 in term 1; n1 counts that for its index 2 of
\* term 3, of which there are two real copies among five
ScriptW12 ==
  << <<"campaign", n1>>, <<"vote", n2, n1>>, <<"vote", n4, n1>>,
     <<"ready", n1>>, <<"propose", n1>>, <<"append", n2, n1, 2>> >> \o
  Twice(n3) \o
  << <<"vote", n4, n3>>, <<"vote", n5, n3>>, <<"ready", n3>> >> \o
  Twice(n1) \o
  << <<"vote", n3, n1>>, <<"vote", n4, n1>>, <<"ready", n1>>,
     <<"append", n3, n1, 2>>, <<"commit", n1, 2>> >> \o
  Twice(n2) \o
  << <<"campaign", n2>>, <<"vote", n4, n2>>, <<"vote", n5, n2>>,
     <<"ready", n2>> >>

\* two stale entries of term 1 beat the committed one of term 2
ScriptW13 ==
  Lead(n1, n3) \o << <<"propose", n1>>, <<"campaign", n2>> >> \o
  Lead(n2, n3) \o
  << <<"append", n3, n2, 1>>, <<"commit", n2, 1>>, <<"campaign", n1>> >> \o
  Lead(n1, n3)

\* three voters become five; n1 never hears of it and wins with n2
ScriptW14 ==
  Lead(n3, n2) \o
  << <<"append", n2, n3, 1>>, <<"hold", n2, n3>>,
     <<"change", n3, {n1, n2, n3, n4}>>,
     <<"append", n4, n3, 1>>, <<"hold", n2, n3>>, <<"hold", n4, n3>>,
     <<"change", n3, {n1, n2, n3, n4, n5}>> >> \o
  Twice(n1) \o
  << <<"vote", n2, n1>>,
     <<"campaign", n3>>, <<"vote", n4, n3>>, <<"vote", n5, n3>> >>

\* A change of term 1 that only n1 knows, another committed in term 2, and n1
\* elected in term 3 with the first.  `second` is how n2 comes to term 2.
Ongaro(second) ==
  LET all == {n1, n2, n3, n4, n5}
  IN  << <<"campaign", n1>>, <<"vote", n3, n1>>, <<"vote", n4, n1>>,
         <<"ready", n1>>, <<"append", n3, n1, 1>>, <<"append", n4, n1, 1>>,
         <<"hold", n3, n1>>, <<"hold", n4, n1>>, <<"change", n1, all>> >> \o
      second \o
      << <<"vote", n3, n2>>, <<"vote", n4, n2>>, <<"ready", n2>>,
         <<"append", n3, n2, 2>>, <<"append", n4, n2, 2>>,
         <<"commit", n2, 2>>, <<"hold", n3, n2>>, <<"hold", n4, n2>>,
         <<"change", n2, {n2, n3, n4}>>, <<"propose", n2>>,
         <<"append", n3, n2, 3>>, <<"commit", n2, 3>> >> \o
      Twice(n1) \o
      << <<"vote", n5, n1>>, <<"vote", n4, n1>>, <<"ready", n1>> >>
ScriptW15 == Ongaro(Twice(n2))
\* with re-stamped configurations n2 has to learn of term 1's first
ScriptC3 == Ongaro(<< <<"learn", n2, {n1, n2, n3, n4}>>, <<"campaign", n2>> >>)

\* n1 shrinks the group to itself, and nobody else hears of it
ScriptW16 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"change", n1, {n1, n2}>>,
     <<"change", n1, {n1}>>, <<"campaign", n1>> >> \o
  Twice(n3) \o << <<"vote", n2, n3>> >>

\* two changes, after which a majority need not have what was committed
ScriptW17 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"commit", n1, 1>>,
     <<"hold", n3, n1>>, <<"change", n1, {n1, n3}>>,
     <<"hold", n3, n1>>, <<"change", n1, {n1, n3, n4}>>,
     <<"learn", n3, {n1, n3, n4}>> >> \o
  Lead(n3, n4)

\* n3 acknowledges, is removed, deletes its log, and is taken back within one
\* term; then its acknowledgement of before arrives
ScriptR1 ==
  Lead(n1, n2) \o
  << <<"propose", n1>>, <<"hold", n3, n1>>, <<"append", n3, n1, 2>>,
     <<"hold", n2, n1>>, <<"append", n2, n1, 1>>, <<"change", n1, {n1, n2}>>,
     <<"learn", n3, {n1, n2}>>, <<"wipe", n3>>,
     <<"hold", n2, n1>>, <<"change", n1, {n1, n2, n3}>>,
     <<"commit", n1, 2>>,
     <<"learn", n2, {n1, n2, n3}>> >> \o
  Lead(n2, n3)

\* the joint configuration needs the new voters only: n1 is one and all
ScriptJ1 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"hold", n2, n1>>, <<"joint", n1, {n1}>>,
     <<"campaign", n1>>, <<"learn", n3, {n1, n2, n3}>>,
     <<"campaign", n3>>, <<"vote", n2, n3>> >>

\* n1 leaves the joint configuration before anybody else has it
ScriptJ2 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"hold", n2, n1>>, <<"joint", n1, {n1}>>,
     <<"leave", n1>>, <<"campaign", n1>>, <<"learn", n3, {n1, n2, n3}>>,
     <<"campaign", n3>>, <<"vote", n2, n3>> >>

\* n1 leaves the joint configuration before the new voters have the log
ScriptJ3 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"commit", n1, 1>>, <<"hold", n3, n1>>,
     <<"joint", n1, {n1, n3, n4}>>, <<"hold", n3, n1>>, <<"leave", n1>>,
     <<"learn", n3, {n1, n3, n4}>> >> \o
  Lead(n3, n4)

\* n4 took over from n1, n2 and n3; n2 and n3 are gone, and the operator
\* orders n1, who missed all of that, to go on without them
ScriptF1 ==
  Lead(n2, n3) \o
  << <<"append", n3, n2, 1>>, <<"hold", n3, n2>>, <<"joint", n2, {n4}>>,
     <<"append", n4, n2, 1>>, <<"hold", n3, n2>>, <<"hold", n4, n2>>,
     <<"campaign", n4>>, <<"vote", n2, n4>>, <<"vote", n3, n4>>,
     <<"ready", n4>>, <<"append", n2, n4, 2>>, <<"append", n3, n4, 2>>,
     <<"hold", n2, n4>>, <<"hold", n3, n4>>, <<"leave", n4>>,
     <<"order", n1>>, <<"force", n1>> >>

\* Ordered to go on without n3, n2 leads alone; it fails, and n1, who never
\* heard of that, is ordered to go on without both, with the same number.
ScriptF4 ==
  Lead(n2, n1) \o
  << <<"append", n1, n2, 1>>, <<"hold", n1, n2>>, <<"change", n2, {n2, n3}>>,
     <<"campaign", n2>>, <<"order", n2>>, <<"order", n1>> >>

\* the entry of a forced recovery cannot be told from the one that it lost
ScriptF3 ==
  Lead(n1, n2) \o
  << <<"append", n2, n1, 1>>, <<"commit", n1, 1>>, <<"lose", n1, 0>>,
     <<"lose", n2, 0>> >> \o
  Twice(n3) \o
  << <<"vote", n1, n3>>, <<"vote", n2, n3>>, <<"force", n3>>,
     <<"append", n1, n3, 1>>, <<"commit", n3, 1>> >>

\* n1, n4 and n5 have the entry; n4 and n5 are gone.  n1 goes on with n2 and n3,
\* who make a majority of three without it.
ScriptF5 ==
  << <<"campaign", n1>>, <<"vote", n4, n1>>, <<"vote", n5, n1>>,
     <<"ready", n1>>, <<"append", n4, n1, 1>>, <<"append", n5, n1, 1>>,
     <<"commit", n1, 1>>, <<"campaign", n1>>, <<"order", n1>>,
     <<"vote", n2, n1>>, <<"vote", n3, n1>>, <<"force", n1>>,
     <<"learn", n2, {n1, n2, n3}>> >> \o
  Lead(n2, n3)
=============================================================================
