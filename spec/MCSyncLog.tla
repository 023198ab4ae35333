------------------------------ MODULE MCSyncLog ------------------------------
(* What TLC needs to run SyncLog: names for the nodes, and the scripts that *)
(* reproduce counterexamples too deep for a search.                         *)
EXTENDS SyncLog

CONSTANTS n1, n2, n3, n4, n5

NoScript == <<>>
None == {}
=============================================================================
