#!/usr/bin/perl
# A service in plain Perl, which is on every Debian. It listens where it is told to, and `disco run` does the rest.
#
#     disco dev --nodes 1 --port 2379                         in one terminal: a real etcd, where the examples look for one
#     disco run experiment --health-path /healthz -- perl examples/frameworks/perl_service.pl
#                                                             in a second and a third: two instances of 'experiment'
#     python examples/caller_sync.py 1000                     in a fourth: who answers? End one with Ctrl-C meanwhile

use strict;
use warnings;
use IO::Socket::INET;

$SIG{CHLD} = 'IGNORE';          # children are not waited for
$SIG{TERM} = sub { exit 0 };    # it comes when all callers have left

my $listener = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $ENV{PORT}, Listen => 128, ReuseAddr => 1)
    or die "can't listen at port $ENV{PORT}: $!\n";

while (1) {
    my $connection = $listener->accept or next;
    if (!fork) {    # a process for each request
        $SIG{TERM} = 'DEFAULT';
        alarm 10;
        my ($method, $path) = split ' ', <$connection> // exit;
        while (my $line = <$connection>) { last if $line eq "\r\n" }
        my $body = $path eq '/healthz' ? "well\n" : "$path answered by " . getppid() . "\n";
        print $connection "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n",
            'Content-Length: ', length $body, "\r\n\r\n", $body;
        exit;
    }
    close $connection;
}
