//! Starting and ending a lab: the processes and namespaces around everything else.
