-- Statements over TPC-H in the SQL of the gateway. Each is told in that of engines, and gives the same rows there; one under a line
-- `-- refused:` is refused for what the line says. Where the order of rows is not said, it does not count; where there is a LIMIT, what it
-- leaves is settled by the order.

select n_name from nation order by n_name;
select * from region;
select r_regionkey, r_name from region where r_name = 'ASIA';
select r_name as "Name", r_regionkey + 1 as next from region;
select count(*) from lineitem;
select count(*), count(o_clerk), min(o_orderdate), max(o_orderdate) from orders;
select count(distinct o_custkey) from orders;
select o_orderstatus, count(*) as c from orders group by o_orderstatus;
select o_orderstatus, count(*) as c from orders group by o_orderstatus having count(*) > 1000 order by c desc;
select o_orderpriority, o_orderstatus, sum(o_totalprice) from orders group by o_orderpriority, o_orderstatus;
select avg(l_quantity), avg(l_extendedprice), avg(l_discount) from lineitem;
select l_returnflag, avg(l_tax) from lineitem group by l_returnflag;
select avg(p_size) from part;
select sum(p_size), sum(p_retailprice), min(p_retailprice), max(p_name) from part;
select sum(l_extendedprice) / sum(l_quantity) from lineitem;
select l_orderkey, l_extendedprice / l_quantity from lineitem where l_orderkey < 100;
select l_orderkey, l_extendedprice * (1 - l_discount) * (1 + l_tax) from lineitem where l_orderkey < 100;
select o_orderkey % 7, o_orderkey / 7, -o_orderkey from orders where o_orderkey < 200;
select l_quantity % 7 from lineitem where l_orderkey < 20;
select p_partkey from part where p_size between 10 and 12 and p_container like 'SM%';
select p_partkey from part where p_size not between 2 and 49;
select p_partkey from part where p_type like '%STEEL' or p_type like 'PROMO%';
select p_partkey from part where p_name not like '%green%' and p_size = 7;
select p_partkey from part where p_brand in ('Brand#11', 'Brand#12') and p_size not in (1, 2, 3, 4, 5);
select s_name from supplier where s_comment like '%50\%%';
select s_name from supplier where s_comment like '%a#_b%' escape '#';
select c_custkey from customer where c_acctbal < 0 and c_mktsegment <> 'BUILDING';
select c_custkey from customer where c_acctbal is null or c_phone is not null and c_custkey < 10;
select c_custkey from customer where (c_acctbal > 9000) is true;
select c_custkey from customer where (c_acctbal > 9000) is not false and c_nationkey is distinct from 3;
select c_name, case when c_acctbal < 0 then 'owes' when c_acctbal < 1000 then 'little' else 'much' end from customer;
select c_name, case c_mktsegment when 'BUILDING' then 1 when 'MACHINERY' then 2 end as s from customer;
select sum(case when o_orderstatus = 'F' then 1 else 0 end) from orders;
select count(*) filter (where o_orderstatus = 'F'), sum(o_totalprice) filter (where o_orderpriority = '1-URGENT') from orders;
select coalesce(nullif(r_name, 'ASIA'), 'none') from region;
select n.n_name, r.r_name from nation n join region r on n.n_regionkey = r.r_regionkey;
select n.n_name, r.r_name from nation n, region r where n.n_regionkey = r.r_regionkey and r.r_name like 'A%';
select n_name, r_name from nation join region on n_regionkey = r_regionkey and r_name <> 'ASIA';
select a.n_name, b.n_name from nation a cross join nation b where a.n_nationkey < b.n_nationkey and b.n_nationkey < 4;
select c.c_custkey, o.o_orderkey from customer c left join orders o on c.c_custkey = o.o_custkey where c.c_custkey < 20;
select c.c_custkey, o.o_orderkey from orders o right join customer c on c.c_custkey = o.o_custkey where c.c_custkey < 20;
select c.c_custkey, count(o.o_orderkey) from customer c left join orders o on c.c_custkey = o.o_custkey and o.o_orderstatus = 'F' group by c.c_custkey;
select a.r_name, b.r_name from region a full join region b on a.r_regionkey = b.r_regionkey + 1;
select r_name, n_name from region left join nation on r_regionkey = n_nationkey order by r_name desc, n_name;
select * from nation a join nation b on a.n_nationkey = b.n_nationkey where a.n_nationkey < 3;
select n1.n_name, n2.n_name from nation n1 join nation n2 using (n_regionkey) where n1.n_nationkey < n2.n_nationkey;
select s.n, s.c from (select n_regionkey as n, count(*) as c from nation group by n_regionkey) as s where s.c > 4;
select s.a + s.b from (select n_nationkey as a, n_regionkey as b from nation) as s;
select t.x from (select s.a as x from (select n_nationkey as a from nation where n_nationkey > 3) as s where s.a < 9) as t;
with big as (select o_custkey, sum(o_totalprice) as total from orders group by o_custkey) select count(*) from big where total > 1000000;
with a as (select n_name from nation), b as (select n_name as m from a where n_name like 'C%') select m from b order by m;
select o_custkey from orders group by o_custkey order by count(*) desc, o_custkey limit 10;
select o_orderkey from orders order by o_totalprice desc, o_orderkey limit 5 offset 3;
select o_orderkey from (select o_orderkey from orders order by o_orderkey limit 20) as t order by o_orderkey desc limit 3;
select distinct n_regionkey from nation;
select distinct c_mktsegment, c_nationkey from customer where c_custkey < 100;
select count(*) from (select distinct o_custkey, o_orderstatus from orders) as t;
select n_name from nation where n_regionkey in (select r_regionkey from region where r_name like 'A%');
select n_name from nation where n_regionkey not in (select r_regionkey from region where r_name like 'A%');
select c_name from customer where exists (select 1 from orders where o_custkey = c_custkey and o_totalprice > 300000);
select count(*) from customer where not exists (select * from orders where o_custkey = c_custkey);
select n_name, (select count(*) from customer where c_nationkey = n_nationkey) from nation;
select n_name, (select max(c_acctbal) from customer where c_nationkey = n_nationkey) as m from nation;
select o_orderkey from orders where o_totalprice = (select max(o_totalprice) from orders);
select o_orderkey from orders o where o_totalprice > (select 3 * avg(o_totalprice) from orders i where i.o_custkey = o.o_custkey);
select (select min(r_name) from region) as lowest, (select max(r_name) from region) as highest;
select c_custkey from customer where c_nationkey = (select n_nationkey from nation where n_name = 'KENYA') and c_acctbal > 9000;
select n_nationkey from nation union all select r_regionkey from region;
select n_nationkey from nation union select r_regionkey from region;
select n_regionkey from nation intersect select r_regionkey from region where r_regionkey > 1;
select n_nationkey from nation except select r_regionkey from region;
select 'n' as k, n_name from nation union all select 'r', r_name from region order by 2, 1;
select l_linenumber, l_quantity from lineitem where l_orderkey = 1 union all select 0, 1.5;
values (1, 'a'), (2, null), (3, 'c');
select v.a, v.b from (values (1, 'x'), (2, 'y')) as v (a, b) where v.a > 1;
select n_name, v.b from nation join (values (1, 'x'), (2, 'y')) as v (a, b) on n_nationkey = v.a;
select 1 as one, 'two' as two, 3.5 as three, null as nothing, true as yes, date '2020-02-29' as leap;
select o_orderdate + interval '1' month, o_orderdate - interval '10' day, o_orderdate + interval '1' year from orders where o_orderkey < 50;
select count(*) from orders where o_orderdate >= date '1995-01-31' + interval '1' month;
select extract(year from o_orderdate) as y, extract(month from o_orderdate) as m, count(*) from orders group by 1, 2;
select extract(quarter from o_orderdate), extract(week from o_orderdate), extract(doy from o_orderdate), extract(dow from o_orderdate) from orders where o_orderkey < 300;
select date_trunc('month', o_orderdate) as m, count(*) from orders group by 1 order by 1;
select l_receiptdate - l_shipdate from lineitem where l_orderkey < 40;
select max(l_receiptdate - l_commitdate) from lineitem;
select substring(c_phone from 1 for 2) as code, count(*) from customer group by 1;
select substr(n_name, 3), left(n_name, 2), reverse(n_name), character_length(n_name) from nation;
select n_name || ' of ' || r_name from nation join region on n_regionkey = r_regionkey;
select concat(n_name, '-', n_comment) from nation where n_nationkey < 4;
select replace(n_name, 'A', '*'), strpos(n_name, 'A'), position('AN' in n_name) from nation;
select trim(' ' || n_name || ' ') as name from nation;
-- refused: the function lpad
select lpad(n_name, 5, '*') as name from nation;
-- refused: the function rpad
select rpad(n_name, 12, '.') as name from nation;
with s as (select 1 as k, sum(o_totalprice) as total from orders) select k from s;
select 'x' as a from (select count(*) as c from nation) s;
select exists (select 1 from (select count(*) as c from nation where n_nationkey < 0) s) as a;
select x, y, count(*) as c, grouping(x) as g, grouping(y) as h from (select n_regionkey as x, n_regionkey as y from nation) s group by rollup (x, y) order by x, y, g, h;
select x, y, count(*) as c from (select n_regionkey as x, n_regionkey as y from nation) s group by grouping sets ((x, y), (x)) order by x, y, c;
-- refused: a column that is called "t1"
select n_name as t1 from nation order by n_nationkey;
select n_name from nation where starts_with(n_name, 'U');
select abs(c_acctbal), ceil(c_acctbal), floor(c_acctbal), round(c_acctbal, 1), round(c_acctbal) from customer where c_custkey < 100;
select cast(c_acctbal as bigint) as a, cast(c_acctbal as double) as b, cast(c_custkey as varchar) as c, cast(c_acctbal as varchar) as d from customer where c_custkey < 100;
select cast(o_orderdate as timestamp) from orders where o_orderkey < 30;
select sqrt(p_size), power(cast(p_size as double), 2), ln(p_size), exp(cast(p_size as double) / 10) from part where p_partkey < 50;
select stddev(p_size), var_pop(p_size), stddev_pop(p_size), var_samp(p_size) from part;
select bool_and(p_size > 0), bool_or(p_size > 49) from part;
select o_custkey, o_orderkey, row_number() over (partition by o_custkey order by o_orderkey) from orders where o_custkey < 50;
select n_name, rank() over (order by n_regionkey), dense_rank() over (order by n_regionkey), ntile(4) over (order by n_name) from nation;
select n_name, lag(n_name) over (order by n_name), lead(n_name, 2, 'none') over (order by n_name) from nation;
select n_name, first_value(n_name) over (partition by n_regionkey order by n_name), count(*) over (partition by n_regionkey) from nation;
select o_orderkey, sum(o_totalprice) over (partition by o_custkey order by o_orderkey rows between 1 preceding and current row) from orders where o_custkey < 30;
select o_orderkey, avg(o_totalprice) over (partition by o_custkey) from orders where o_custkey < 30;
select n_name, percent_rank() over (order by n_regionkey), cume_dist() over (order by n_regionkey) from nation;
select n_regionkey, c, rank() over (order by c desc) from (select n_regionkey, count(*) as c from nation group by n_regionkey) as t;
select n_regionkey, sum(n_nationkey), sum(sum(n_nationkey)) over () from nation group by n_regionkey;
select o_orderstatus, o_orderpriority, count(*) from orders group by rollup (o_orderstatus, o_orderpriority);
select o_orderstatus, o_orderpriority, count(*) from orders group by cube (o_orderstatus, o_orderpriority);
select o_orderstatus, o_orderpriority, count(*), grouping(o_orderstatus) from orders group by grouping sets ((o_orderstatus), (o_orderpriority), ());
select extract(year from o_orderdate) as y, o_orderstatus, sum(o_totalprice) from orders group by rollup (extract(year from o_orderdate), o_orderstatus);
select cast(p_size as double) as d from part where cast(p_size as double) > 49.5;
select max(cast(p_size as double)), min(cast(p_size as double)), avg(cast(p_size as double)) from part;
select ps_suppkey from partsupp where ps_availqty * 1.5 > 14990 order by ps_suppkey, ps_partkey;
select cast('12' as integer) + n_nationkey from nation;

-- Joins.
select c.c_name, n.n_name, r.r_name from customer c join nation n on c.c_nationkey = n.n_nationkey join region r on n.n_regionkey = r.r_regionkey where c.c_custkey < 60;
select s.s_name, p.p_name, ps.ps_supplycost from partsupp ps join supplier s on s.s_suppkey = ps.ps_suppkey join part p on p.p_partkey = ps.ps_partkey where p.p_size = 1 and s.s_acctbal > 5000;
select r.r_name, n.n_name, s.s_name from region r left join nation n on n.n_regionkey = r.r_regionkey and n.n_name like 'I%' left join supplier s on s.s_nationkey = n.n_nationkey and s.s_acctbal > 4000;
select c.c_custkey from customer c left join orders o on o.o_custkey = c.c_custkey where o.o_orderkey is null and c.c_custkey < 100 order by c.c_custkey;
select n.n_name, r.r_name from region r right join nation n on n.n_regionkey = r.r_regionkey and r.r_name < 'B';
select coalesce(a.k, b.k) as k, a.c, b.c as d from (select c_nationkey as k, count(*) as c from customer where c_acctbal > 9500 group by c_nationkey) as a full join (select s_nationkey as k, count(*) as c from supplier where s_acctbal > 5000 group by s_nationkey) as b on a.k = b.k;
select a.p_partkey, b.p_partkey as other from part a join part b on a.p_brand = b.p_brand and a.p_size = b.p_size and a.p_partkey < b.p_partkey where a.p_size = 3;
select n.n_name, v.lo from nation n join (values (0, 5), (10, 14)) as v (lo, hi) on n.n_nationkey between v.lo and v.hi;
select n.n_name, r.r_name from nation n left join region r on n.n_regionkey = r.r_regionkey and n.n_nationkey > 12;
select r.r_regionkey, n.n_nationkey from region r left join nation n on n.n_nationkey < r.r_regionkey;
select count(*) from region a cross join region b cross join nation;
select n.n_name, s.s_name from nation n left join (supplier s join region r on s.s_suppkey % 5 = r.r_regionkey and r.r_name <> 'ASIA') on s.s_nationkey = n.n_nationkey where n.n_nationkey < 5;
select n_name, r_name from nation natural join (select r_regionkey as n_regionkey, r_name from region) as r;
select pk, sk, a.q, b.c from (select l_partkey as pk, l_suppkey as sk, sum(l_quantity) as q from lineitem where l_partkey < 20 group by l_partkey, l_suppkey) as a join (select ps_partkey as pk, ps_suppkey as sk, ps_supplycost as c from partsupp) as b using (pk, sk);
select n_regionkey, n_name, x from nation left join (select r_regionkey as n_regionkey, r_name as x from region where r_regionkey < 2) as r using (n_regionkey);
select c_custkey, c_name from customer left semi join orders on o_custkey = c_custkey and o_totalprice > 350000;
select c_custkey from customer left anti join orders on o_custkey = c_custkey where c_custkey < 50;
select a.k, b.k as other from (values (1), (null), (3)) as a (k) join (values (null), (3), (4)) as b (k) on a.k is not distinct from b.k;
select n_name, r_name from nation join region on n_regionkey + 1 = r_regionkey;
select count(*) from customer join supplier on substr(c_phone, 1, 2) = substr(s_phone, 1, 2) where c_custkey < 50;
select p_partkey, p_retailprice from part join (values (901.00), (902.00), (1000.5)) as v (price) on p_retailprice = v.price;
select l.l_orderkey, o.o_orderdate, l.l_shipdate from lineitem l join orders o on o.o_orderkey = l.l_orderkey and l.l_shipdate > o.o_orderdate + interval '120' day;
select a.n_name as one, b.n_name as two, c.n_name as three from nation a left join nation b on b.n_nationkey = a.n_nationkey + 1 and b.n_regionkey = a.n_regionkey left join nation c on c.n_nationkey = b.n_nationkey + 1;
select count(*), count(o.o_orderkey), count(distinct c.c_custkey) from customer c left join orders o on o.o_custkey = c.c_custkey and o.o_orderdate >= date '1998-01-01';

-- Sub-queries.
select count(*) from lineitem l1 where l1.l_orderkey < 500 and exists (select 1 from lineitem l2 where l2.l_orderkey = l1.l_orderkey and l2.l_suppkey <> l1.l_suppkey);
select o_orderkey from orders where o_orderkey < 1000 and not exists (select 1 from lineitem where l_orderkey = o_orderkey and l_receiptdate > l_commitdate) order by o_orderkey;
select n_name from nation where n_nationkey not in (select nullif(r_regionkey, 3) from region);
select n_name from nation where n_nationkey not in (select nullif(r_regionkey, 3) from region where r_regionkey <> 3) order by n_name;
select n_name from nation where nullif(n_nationkey, 7) not in (select r_regionkey from region);
select n_name, n_regionkey in (select r_regionkey from region where r_name like 'A%') as is_a from nation;
select n_nationkey, n_nationkey not in (select nullif(r_regionkey, 0) from region) as is_out from nation;
select n_name, exists (select 1 from supplier where s_nationkey = n_nationkey and s_acctbal < 0) as owes from nation;
select c_custkey, case when exists (select 1 from orders where o_custkey = c_custkey) then 'buys' else 'does not' end as kind from customer where c_custkey < 40;
select n_name from nation where n_name like 'A%' or exists (select 1 from region where r_regionkey = n_regionkey and r_name = 'EUROPE');
select p_partkey from part where p_retailprice > (select avg(p_retailprice) * 1.3 from part) order by p_partkey;
select o_custkey, o_orderkey from orders o where o_custkey < 100 and o_orderdate = (select max(i.o_orderdate) from orders i where i.o_custkey = o.o_custkey);
select r_name, (select count(*) from nation where n_regionkey = r_regionkey) as nations, (select min(n_name) from nation where n_regionkey = r_regionkey) as first_name from region;
select o_custkey, sum(o_totalprice) as total from orders group by o_custkey having sum(o_totalprice) > (select max(o_totalprice) * 8 from orders);
-- refused: a sub-query that names columns of a query two around it
select n_name from nation order by (select max(r_name) from region where r_regionkey = n_regionkey), n_name;
select r_name, (select min(n_name) from nation where n_nationkey > 100) as nothing from region;
select s_name from supplier where s_suppkey in (select ps_suppkey from partsupp where ps_partkey in (select p_partkey from part where p_name like 'forest%') and ps_availqty > 5000);
select c_custkey from customer where c_custkey in (select o_custkey from orders group by o_custkey having count(*) > 25);
select n_name from nation where n_regionkey = any (select r_regionkey from region where r_name > 'B');
select n_name from nation where n_regionkey <> all (select r_regionkey from region where r_name > 'B');
select o_orderkey from orders where o_orderkey < 200 and o_orderstatus in (select l_linestatus from lineitem where l_orderkey = o_orderkey);
select o_orderkey from orders where o_orderkey < 200 and o_orderstatus not in (select l_linestatus from lineitem where l_orderkey = o_orderkey);
select t.n_name, t.c from (select n_name, (select count(*) from supplier where s_nationkey = n_nationkey) as c from nation) as t where t.c > 4;
select c_custkey, c_acctbal - (select avg(i.c_acctbal) from customer i where i.c_nationkey = o.c_nationkey) as above from customer o where c_custkey < 50;
select n_name from nation where (select count(*) from customer where c_nationkey = n_nationkey) > 60;
select count(*) from (select o_orderkey from orders where o_custkey in (select c_custkey from customer where c_mktsegment = 'BUILDING') order by o_orderkey limit 100) as t;
select max(c) from (select count(*) as c from orders group by o_custkey) as t;
select p_partkey from part where p_size = (select max(p_size) from part) and p_retailprice < (select avg(p_retailprice) from part);

-- WITH.
with spent as (select o_custkey as k, sum(o_totalprice) as total from orders group by o_custkey) select c_name, total from customer join spent on k = c_custkey where total > 2000000 order by total desc, c_name;
with t (a, b) as (select n_nationkey, n_name from nation where n_nationkey < 4) select x.b, y.b as other from t x join t y on x.a < y.a;
with nation as (select 1 as n union all select 2) select n from nation order by n;
with a as (select r_regionkey as k from region), b as (select k from a where k > 1), c as (select k from b union all select k from a) select k, count(*) as n from c group by k order by k;
select n_name from nation where n_regionkey in (with asia as (select r_regionkey from region where r_name = 'ASIA') select r_regionkey from asia);
with ranked as (select o_custkey, o_orderkey, row_number() over (partition by o_custkey order by o_totalprice desc, o_orderkey) as r from orders) select o_custkey, o_orderkey from ranked where r <= 2 and o_custkey < 40;
with months as (select date_trunc('month', o_orderdate) as m, sum(o_totalprice) as total from orders group by 1) select m, total, total - lag(total) over (order by m) as more from months order by m;
with v (id, label) as (values (1, 'one'), (2, 'two')) select n_name, label from nation join v on id = n_regionkey;

-- Sets.
select n_name as name from nation where n_nationkey < 3 union select r_name from region union select 'ASIA' order by name limit 6;
select n_regionkey, n_nationkey from nation intersect select r_regionkey, r_regionkey * 6 from region;
select a from (values (1), (null), (null), (2)) as t (a) union select b from (values (null), (2), (3)) as u (b);
select a from (values (1), (null), (2)) as t (a) except select b from (values (null), (3)) as u (b);
select a from (values (1), (null), (2)) as t (a) intersect select b from (values (null), (3)) as u (b);
(select c_nationkey from customer union select s_nationkey from supplier) except select n_nationkey from nation where n_regionkey = 2;
select kind, count(*) as n, sum(balance) as total from (select 'customer' as kind, c_acctbal as balance from customer union all select 'supplier', s_acctbal from supplier) as t group by kind order by kind;
select p_size as n from part where p_partkey < 5 union all select p_partkey from part where p_partkey < 3 union all select p_retailprice from part where p_partkey < 3;
select o_orderdate as d from orders where o_orderkey < 4 union all select null union all select date '2000-01-01';
select c_nationkey from customer where c_custkey < 30 intersect select s_nationkey from supplier where s_suppkey < 60 except select 7;
select n_regionkey, count(*) as c from nation group by n_regionkey union all select null, count(*) from nation order by 1 nulls last, 2;
select o_orderpriority from orders where o_orderkey in (select l_orderkey from lineitem where l_shipmode = 'RAIL' intersect select l_orderkey from lineitem where l_shipmode = 'SHIP') group by o_orderpriority;

-- Windows.
select o_orderkey, sum(o_totalprice) over (order by o_orderkey rows between unbounded preceding and current row) as running from orders where o_orderkey < 200 order by o_orderkey;
select o_orderkey, avg(o_totalprice) over (order by o_orderkey rows between 2 preceding and 2 following) as near from orders where o_orderkey < 200 order by o_orderkey;
select o_orderdate, count(*) over (order by o_orderdate) as so_far from orders where o_orderdate < date '1992-01-20' order by o_orderdate;
select n_name, count(*) over (order by n_regionkey range between current row and unbounded following) as rest from nation;
select n_name, sum(n_nationkey) over (order by n_regionkey groups between 1 preceding and current row) as s from nation;
select n_name, last_value(n_name) over (partition by n_regionkey order by n_name rows between unbounded preceding and unbounded following) as l from nation;
select n_name, nth_value(n_name, 2) over (partition by n_regionkey order by n_name rows between unbounded preceding and unbounded following) as second_name from nation;
select n_name, lag(n_name, 2) over (partition by n_regionkey order by n_name desc) as b, lead(n_nationkey, 1, -1) over (order by n_nationkey) as a from nation;
select c_custkey, rank() over (partition by c_mktsegment order by c_acctbal desc) as r, dense_rank() over (order by c_nationkey) as d from customer where c_custkey < 100;
select n_name, row_number() over w as r, sum(n_nationkey) over w as s from nation window w as (partition by n_regionkey order by n_name);
select n_regionkey, n_name from nation qualify row_number() over (partition by n_regionkey order by n_name) = 1;
select o_custkey, o_orderkey, o_totalprice - lag(o_totalprice) over (partition by o_custkey order by o_orderdate, o_orderkey) as more from orders where o_custkey < 30;
select o_orderdate, o_orderdate - lag(o_orderdate) over (order by o_orderdate, o_orderkey) as days from orders where o_custkey = 1 order by o_orderdate;
select extract(year from o_orderdate) as y, sum(o_totalprice) as total, rank() over (order by sum(o_totalprice) desc) as r from orders group by extract(year from o_orderdate) order by y;
select n_regionkey, count(*) as c, sum(count(*)) over (order by n_regionkey) as so_far from nation group by n_regionkey order by n_regionkey;
select p_brand, p_size, max(p_retailprice) over (partition by p_brand, p_size) as m, min(p_retailprice) over (partition by p_brand) as l from part where p_partkey < 100;
select s_name, s_acctbal, case when rank() over (order by s_acctbal desc) <= 3 then 'top' else 'rest' end as class from supplier;
select n_name, first_value(n_name) over (order by n_regionkey desc, n_name) as f, count(*) over () as n from nation order by n_name;
select s_name, sum(s_acctbal) over (order by s_name rows between 1 following and 3 following) as ahead from supplier order by s_name;
select k, lag(v) over (order by k) as before, count(v) over (order by k rows between 1 preceding and 1 following) as near from (values (1, 'a'), (2, null), (3, 'c')) as t (k, v) order by k;
select v, rank() over (order by v nulls first) as f, rank() over (order by v desc nulls last) as l from (values (3), (null), (1), (null)) as t (v);
select n_name, bool_or(n_name like 'I%') over (partition by n_regionkey) as has_i from nation;
select c_custkey, ntile(5) over (order by c_acctbal, c_custkey) as fifth from customer where c_custkey < 60;
select t.n_name from (select n_name, row_number() over (order by n_name) as r from nation) as t where t.r between 5 and 8 order by t.n_name;
select o_orderpriority, o_totalprice, stddev(o_shippriority + 1) over (partition by o_orderpriority) as s from orders where o_orderkey < 40;

-- Groups.
select l_returnflag, l_linestatus, count(*) as n, sum(l_quantity) as q, min(l_shipdate) as first_day, max(l_shipdate) as last_day from lineitem group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus;
select c_mktsegment, count(distinct c_nationkey) as n, min(c_acctbal) as least, max(c_acctbal) as most from customer group by c_mktsegment having count(*) between 280 and 310;
select sum(distinct p_size), min(distinct p_size), count(distinct p_brand), count(distinct p_retailprice) from part;
select c_acctbal < 0 as owes, count(*) as n from customer group by c_acctbal < 0;
select case when p_size < 10 then 'small' when p_size < 30 then 'middle' else 'large' end as class, count(*) as n, avg(p_retailprice) as price from part group by 1 order by 1;
select substr(c_phone, 1, 2) as code, count(*) as n from customer group by code having count(*) > 60 order by code;
select count(*) from orders where false;
select sum(o_totalprice), min(o_orderdate), count(o_clerk), avg(o_totalprice) from orders where o_orderkey < 0;
select o_orderstatus, sum(o_totalprice) from orders where o_orderkey < 0 group by o_orderstatus;
select n_regionkey, max(n_name) as m from nation group by n_regionkey having max(n_name) > 'S' or min(n_name) like 'A%';
select o_orderstatus, count(*) filter (where o_orderpriority like '1%') as urgent, count(*) filter (where o_totalprice > 200000) as dear, avg(o_totalprice) filter (where o_custkey < 500) as a from orders group by o_orderstatus;
select p_brand, sum(case when p_size > 25 then p_retailprice else 0 end) as large, sum(p_retailprice) as whole from part group by p_brand order by p_brand;
select p_mfgr, p_brand, count(*) as n from part group by rollup (p_mfgr, p_brand) having count(*) > 90;
select p_mfgr, p_brand, count(*) as n, grouping(p_mfgr) as a, grouping(p_brand) as b from part where p_size < 4 group by cube (p_mfgr, p_brand);
select n_regionkey, n_name, count(*) as c from nation where n_nationkey < 6 group by n_regionkey, rollup (n_name);
select o_orderstatus, o_orderpriority, sum(o_totalprice) as total from orders group by grouping sets ((o_orderstatus, o_orderpriority), (o_orderstatus), ());
select coalesce(o_orderstatus, 'all') as s, count(*) as n from orders group by rollup (o_orderstatus) order by s;
select case when grouping(r_name) = 1 then 'all' else r_name end as name, count(*) as n from region group by rollup (r_name);
select l_shipmode, sum(l_extendedprice * (1 - l_discount)) as income, sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as charge from lineitem group by l_shipmode order by l_shipmode;
select sum(l_extendedprice * l_discount) / sum(l_extendedprice) as rate from lineitem;
select o_custkey, sum(o_totalprice) / count(*) as mean, max(o_totalprice) - min(o_totalprice) as spread from orders where o_custkey < 50 group by o_custkey;
select 100.0 * count(*) filter (where o_orderstatus = 'F') / count(*) as percent from orders;
select n_regionkey, count(nullif(n_regionkey, 2)) as c, count(*) - count(nullif(n_name, 'CHINA')) as gone from nation group by n_regionkey;
select k, count(*) as n, count(v) as c, sum(v) as s from (values ('a', 1), ('a', null), (null, 3), (null, null)) as t (k, v) group by k;
select distinct extract(year from o_orderdate) as y, o_orderstatus from orders order by y, o_orderstatus;
select distinct p_brand || '/' || p_container as what from part where p_size = 5;
select distinct v from (values (1), (null), (null), (1)) as t (v);
select avg(v), sum(v), count(v) from (values (1.25), (null), (2.5)) as t (v);

-- Conditions, and what is not known.
select p_partkey, case p_size when 1 then 'one' when 2 then 'two' else null end as word from part where p_partkey < 60;
select c_custkey, case when c_acctbal > 5000 then c_acctbal when c_acctbal > 0 then 0 else -1 end as b from customer where c_custkey < 60;
select case when n_regionkey = 0 then case when n_name like 'A%' then 'a' else 'b' end else 'c' end as k, count(*) as n from nation group by 1;
select v, v = 1 as e, v <> 1 as d, v is null as n, v is not null as k, not (v = 1) as x from (values (1), (2), (null)) as t (v);
select v, (v > 1) is true as a, (v > 1) is not true as b, (v > 1) is false as c, (v > 1) is unknown as d, (v > 1) is not unknown as e from (values (1), (2), (null)) as t (v);
select a, b, a and b as c, a or b as d, not a as e from (values (true, true), (true, null), (false, null), (false, false), (null, null)) as t (a, b);
select v in (1, null) as a, v not in (1, null) as b, v in (2, 3) as c, v between 1 and null as d from (values (1), (2), (null)) as t (v);
select a is distinct from b as d, a is not distinct from b as s from (values (1, 1), (1, null), (null, null)) as t (a, b);
select coalesce(a, b, 0) as c, nullif(a, b) as n, nvl(a, -1) as v, nvl2(a, b, 7) as w from (values (1, 1), (2, null), (null, 3)) as t (a, b);
select count(*) from part where p_size in (1, 5, 9) and p_brand not in ('Brand#13', 'Brand#42') and not p_container = 'JUMBO PKG';
select count(*) from orders where o_orderdate in (date '1995-01-01', date '1996-02-29') or o_orderdate = '1997-07-01';
select p_partkey from part where (p_size = 7 and p_brand = 'Brand#11') or p_partkey = 3;
select count(*) from customer where c_acctbal not between 0 and 9000 and c_mktsegment between 'B' and 'G';
select count(*) from lineitem where l_shipmode in ('MAIL', 'SHIP') and l_commitdate < l_receiptdate and l_shipdate < l_commitdate and l_receiptdate >= date '1994-01-01';
select count(*) from lineitem where l_discount between 0.06 - 0.01 and 0.06 + 0.01 and l_quantity < 24;
select count(*) from customer where c_nationkey = '3' or c_acctbal > '9990.5';
select n_name from nation where n_name > 'M' and n_name <= 'RUSSIA' and n_name <> 'PERU' order by n_name;
select count(*) from orders where not (o_orderstatus = 'F' or o_totalprice < 100000) and not o_orderpriority like '%SPEC%';
select nullif(n_regionkey, 1) + 1 as a, nullif(n_name, 'PERU') || '!' as b from nation where n_nationkey > 15;
select true as t, false as f, null = null as u, 1 = 1 and not false as a;

-- Patterns.
select count(*) from customer where c_name like 'Customer#00000_1__';
select count(*) from part where p_name like '%lace%' and p_name not like 'a%' and p_type like '_TANDARD%COPPER';
select v from (values ('50%'), ('50 %'), ('a_b'), ('axb'), ('a\b')) as t (v) where v like '50!%' escape '!' or v like 'a!_b' escape '!';
select v from (values ('50%'), ('505'), ('a_b'), ('axb')) as t (v) where v like '50\%' or v like 'a\_b';
select v from (values ('a!b'), ('ab'), ('a!!b')) as t (v) where v like 'a!!b' escape '!';
select v, v like '%' as a, v like '' as b, v not like '_' as c from (values (''), ('x'), ('xy'), (null)) as t (v);
select v from (values ('größe'), ('grösse'), ('gr😀ße')) as t (v) where v like 'gr_ße';

-- Dates and moments.
select o_orderdate, o_orderdate + interval '1 month 2 days' as a, o_orderdate - interval '1 year' as b from orders where o_orderkey < 40;
select date '2024-02-29' + interval '1' year as a, date '2024-03-31' - interval '1' month as b, date '2023-12-31' + interval '2' day as c, date '1969-12-31' - interval '5' day as d;
select o_orderkey from orders where o_orderdate >= date '1997-01-01' and o_orderdate < date '1997-01-01' + interval '1' month - interval '1' day order by o_orderkey;
select count(*) from lineitem where l_shipdate + interval '30' day < l_receiptdate + interval '2' day and l_orderkey < 5000;
select count(*) from lineitem where l_receiptdate - l_shipdate > 28;
select date_part('year', o_orderdate) as y, date_part('month', o_orderdate) as m, count(*) as n from orders where o_orderdate < '1993-01-01' group by 1, 2 order by 1, 2;
select extract(day from o_orderdate) as d, count(*) as n from orders group by extract(day from o_orderdate) having count(*) > 500;
select extract(dow from o_orderdate) as d, count(*) as n, sum(o_totalprice) as total from orders group by 1 order by 1;
select d, extract(week from d) as w, extract(doy from d) as n, extract(quarter from d) as q, extract(dow from d) as k from (values (date '2020-12-31'), (date '2021-01-01'), (date '2024-12-30'), (date '1970-01-04'), (date '1969-12-28')) as t (d);
select date_trunc('year', o_orderdate) as y, min(o_orderdate) as first_day, max(o_orderdate) as last_day from orders group by date_trunc('year', o_orderdate) order by y;
select date_trunc('week', d) as w, date_trunc('quarter', d) as q, date_trunc('day', d) as k from (values (date '2024-01-01'), (date '2023-12-31'), (date '1969-12-31')) as t (d);
select cast(date_trunc('month', o_orderdate) as date) as m, count(distinct o_custkey) as n from orders where o_orderdate between '1996-01-01' and '1996-06-30' group by 1 order by 1;
select timestamp '2024-02-29 12:34:56.789' as t, timestamp '1969-12-31 23:59:59.999999' as u;
select t, t + interval '90' minute as a, t - interval '1' day as b, t + interval '1' month as c, t + interval '1.5' second as d from (values (timestamp '2024-01-31 23:30:00'), (timestamp '1999-12-31 23:59:59.5')) as v (t);
select extract(hour from t) as h, extract(minute from t) as m, extract(second from t) as s, extract(year from t) as y from (values (timestamp '2024-01-31 23:30:15.75'), (timestamp '1969-01-01 01:02:03')) as v (t);
select date_trunc('hour', t) as h, date_trunc('minute', t) as m, date_trunc('second', t) as s from (values (timestamp '2024-01-31 23:30:15.75'), (timestamp '1969-12-31 23:59:59.999')) as v (t);
select count(*) from orders where cast(o_orderdate as timestamp) < timestamp '1995-03-15 12:00:00' and o_orderdate >= timestamp '1995-03-01 00:00:01';
select o_orderkey, cast(cast(o_orderdate as timestamp) + interval '36' hour as date) as d from orders where o_orderkey < 30;
select min(l_shipdate), max(l_commitdate), count(distinct l_receiptdate) from lineitem where l_shipdate between date '1995-01-01' and date '1995-03-31';
select o_orderdate < date '1996-01-01' as old, max(o_orderdate) as d from orders group by 1;
select coalesce(nullif(o_orderdate, date '1996-01-02'), date '1900-01-01') as d from orders where o_orderkey < 10;
select date '2024-03-01' - date '2024-02-01' as days, date '2024-03-01' > date '2024-02-01' as later;

-- Texts.
select n_name, length(n_name) as l, char_length(n_comment) as c, octet_length(n_name) as o from nation;
select substring(n_name from 2 for 3) as a, substring(n_name, 4) as b, substr(n_name, 1, 0) as c, substr(n_name, 30) as d, left(n_name, 0) as e from nation;
select v, length(v) as l, octet_length(v) as o, reverse(v) as r, substr(v, 2, 2) as s, left(v, 2) as b, strpos(v, 'ß') as p from (values ('größe'), ('日本語'), ('a😀b'), (''), (null)) as t (v);
-- refused: the function lpad
select lpad('ß', 3, 'äö') as d from nation where n_nationkey < 8;
select ltrim('  a b  ') || '|' as a, rtrim('  a b  ') || '|' as b, trim('  a b  ') || '|' as c, btrim('xxaxbxx', 'x') as d from region;
select trim(leading '0' from c_phone) as a, trim(trailing '1234' from c_phone) as b, trim(both 'Cus' from c_name) as c from customer where c_custkey < 20;
select concat(r_name, null, '-', r_regionkey) as a, concat_ws('/', r_name, nullif(r_name, 'ASIA'), 'x') as b from region;
select concat_ws(', ', n_name, r_name) as place from nation join region on n_regionkey = r_regionkey order by place;
select r_name || '-' || r_regionkey as a, r_name || nullif(r_name, 'ASIA') as b from region;
select replace(p_name, ' ', '') as a, replace(p_type, 'STEEL', 'Stahl') as b from part where p_partkey < 20;
select n_name, position('IA' in n_name) as p, strpos(n_comment, 'e') as s, contains(n_name, 'ND') as c, starts_with(n_name, 'I') as i from nation;
select max(length(p_name)), min(length(p_comment)), sum(octet_length(p_brand)) from part;
select n_name from nation order by length(n_name) desc, n_name limit 5;
select 'it''s' as q, 'a"b' as d, 'tab	' as t, '\' as b, '' as e, '日本' as j, '😀' as s;
select c_name from customer where substring(c_phone from 1 for 2) in ('13', '31', '23') and c_acctbal > 9500;
select min(c_name), max(c_address), count(distinct substr(c_phone, 1, 2)) from customer;

-- Numbers.
select p_size, p_size + 1 as a, p_size - 60 as b, p_size * p_size as c, p_size / 7 as d, p_size % 7 as e, -p_size as f from part where p_partkey < 40;
select 7 / 2 as a, -7 / 2 as b, -7 % 3 as c, 7 % -3 as d, 7.0 / 2 as e, 1.10 * 3.3 as f, 0.1 + 0.2 as g, -7.5 / 2.0 as h;
select c_acctbal, abs(c_acctbal) as a, -c_acctbal as b, c_acctbal * 2 as c, c_acctbal / 3 as d, c_acctbal % 100 as e from customer where c_custkey < 60;
select round(c_acctbal, 1) as a, round(c_acctbal, 0) as b, round(c_acctbal) as c, round(c_acctbal / 7, 3) as d, ceil(c_acctbal / 7) as e, floor(-c_acctbal) as f from customer where c_custkey < 60;
select v, round(v) as r, round(v, 1) as o, ceil(v) as c, floor(v) as f, abs(v) as a, trunc(v) as t from (values (2.50), (-2.50), (0.05), (-0.05), (9.99), (null)) as t (v);
select l_extendedprice * l_quantity as a, l_extendedprice * (1 - l_discount) / l_quantity as b, l_tax + l_discount as c from lineitem where l_orderkey < 60;
select l_orderkey, l_linenumber, l_extendedprice / 3 as a, l_quantity / l_linenumber as b, l_linenumber / l_quantity as c from lineitem where l_orderkey < 60;
select p_partkey, sqrt(p_retailprice) as a, cbrt(p_size) as b, log10(p_retailprice) as c, log2(p_size) as d, log(2, p_size) as e, exp(p_size) as f from part where p_partkey < 30;
select n_nationkey, sin(n_nationkey) as a, cos(n_nationkey) as b, tan(n_nationkey) as c, atan(n_nationkey) as d, degrees(n_nationkey) as e, radians(n_nationkey) as f from nation;
-- refused: the function atan2 of exact numbers
select atan2(n_nationkey, 2) as angle from nation;
select p_partkey, power(p_size, 2) as a, power(p_size, 0.5) as b from part where p_partkey < 30;
select pi() as p, power(2.5, 2) as a, power(cast(2 as double), 0.5) as b, sqrt(2) as c, ln(10) as d, log(1000) as e;
select p_partkey, cast(p_size as double) / 7 as a, cast(p_retailprice as double) * 1.5 as b, p_size * 0.1e0 as c, abs(cast(-p_size as double)) as d from part where p_partkey < 30;
select count(*) from part where cast(p_retailprice as double) between 1000.5 and 1500 and cast(p_size as double) <> 7 and cast(p_size as double) <= 30.5;
select p_partkey, ceil(cast(p_retailprice as double) / 7) as a, floor(cast(p_retailprice as double) / 7) as b, trunc(cast(p_retailprice as double) / 7) as c, isnan(cast(p_size as double)) as d from part where p_partkey < 30;
select sum(cast(l_quantity as double)), avg(cast(l_tax as double)), stddev(l_discount), var_pop(l_tax) from lineitem;
select 12345678901234567890.12 as a, 0.000001 as b, 99999999999999999999999999999999999999 as c, -9223372036854775808 as d, 2147483648 as e;
select sum(p_retailprice * p_size), avg(p_retailprice * 2), max(p_retailprice / 2), min(p_size * 1.25) from part;

-- Casts.
select cast(p_retailprice as integer) as a, cast(-p_retailprice as bigint) as b, cast(p_retailprice as decimal(10, 1)) as c, cast(p_retailprice as decimal(20, 4)) as d from part where p_partkey < 60;
select cast(p_size as smallint) as a, cast(p_partkey as integer) as b, cast(p_size as decimal(5, 2)) as c, cast(p_size as real) as d, cast(p_size as varchar) || '!' as e from part where p_partkey < 30;
select o_orderdate::varchar as a, o_totalprice::varchar as b, (o_totalprice > 100000)::varchar as c, (o_orderkey % 2)::boolean as d, (o_totalprice > 100000)::integer as e from orders where o_orderkey < 60;
select try_cast(c_acctbal as smallint) as a, try_cast(c_custkey as tinyint) as b from customer where c_custkey between 100 and 160;
select cast('2024-02-29' as date) as a, cast('1.50' as decimal(5, 2)) as b, cast('12' as bigint) as c, cast(null as varchar) as d, cast(1 as boolean) as e, cast('true' as boolean) as f;
select cast(cast(p_retailprice as double) as bigint) as a, cast(-2.7 as integer) as b, cast(cast(-2.7 as double) as integer) as c from part where p_partkey < 20;
select cast(o_orderdate as timestamp(6)) as a, cast(o_orderdate as timestamp(3)) as b from orders where o_orderkey < 20;
select case when p_size > 25 then 1 else 2.5 end as a, coalesce(nullif(p_size, 1), 0.5) as b, nullif(p_size, 2) as c from part where p_partkey < 30;

-- Rows that are written out.
values (1, 'a', true, date '2024-01-01', 1.5), (2, 'b', false, date '2024-01-02', 2.25), (null, null, null, null, null);
select v.k, count(o_orderkey) as n from (values ('1-URGENT'), ('2-HIGH'), ('none')) as v (k) left join orders on o_orderpriority = v.k group by v.k order by v.k;
select lo, hi, count(p_partkey) as n from (values (1, 10), (11, 40), (60, 70)) as v (lo, hi) left join part on p_size between lo and hi group by lo, hi order by lo;
select column1, column2 from (values (1, 2), (3, 4)) where column1 > 1;
select sum(a) as s, max(b) as m from (values (1, 'x'), (2, 'y'), (null, 'z')) as t (a, b);

-- Order and limits.
select v from (values (2), (null), (1)) as t (v) order by v nulls first;
select v from (values (2), (null), (1)) as t (v) order by v desc nulls last;
select v from (values (2), (null), (1)) as t (v) order by v desc;
select v from (values (2), (null), (1)) as t (v) order by v;
select n_regionkey, n_name from nation order by n_regionkey desc, n_name asc limit 7 offset 4;
select n_name from nation order by n_nationkey offset 20;
select n_name from nation order by n_name limit 0;
select n_name, -n_nationkey as k from nation order by k limit 5;
select r_name from region order by case when r_name = 'EUROPE' then 0 else 1 end, r_name limit 3;
select o_orderkey, o_totalprice from (select o_orderkey, o_totalprice from orders order by o_totalprice desc, o_orderkey limit 50) as t where o_orderkey % 2 = 0 order by o_totalprice limit 5;
select count(*) from (select 1 from lineitem limit 1000) as t;
select v from (values ('b'), ('B'), ('a'), ('Ä'), ('z'), ('é'), ('😀'), ('1')) as t (v) order by v;
select distinct n_regionkey from nation order by n_regionkey desc limit 2;
select c_mktsegment, max(c_acctbal) as m from customer group by c_mktsegment order by m desc limit 3;

-- Names.
select n_name as "Name of a nation", n_regionkey as "select", n_nationkey as "a""b" from nation order by "Name of a nation";
select "n"."n_name", "R"."r_name" as "Größe" from "nation" as "n" join "region" as "R" on "n"."n_regionkey" = "R"."r_regionkey" where "R"."r_name" = 'AFRICA';
select "日本"."ключ" from (select n_nationkey as "ключ" from nation where n_nationkey < 3) as "日本" order by "ключ";
select tiny.nation.n_name from tpch.tiny.nation where tpch.tiny.nation.n_nationkey = 3;
select n.*, 1 as one from tiny.nation n where n_nationkey < 2;
select N_NAME as UPPER_NAME from NATION where N_NATIONKEY = 5;
select t.s1 as a, t.c1 from (select n_nationkey as s1, n_name as c1 from nation) as t join (select n_nationkey as t1, n_name as c1 from nation) as s on t.s1 = s.t1 where s.c1 like 'C%';

-- What is refused, each with what it is refused for. Functions that differ, or whose texts do.
-- refused: the function upper
select upper(n_name) from nation;
-- refused: the function lower
select n_nationkey from nation where lower(n_name) = 'peru';
-- refused: the function initcap
select initcap(n_name) from nation;
-- refused: the function right
select right(n_name, 2) from nation;
-- refused: the function substr
select substr(n_name, -2) from nation;
-- refused: the function split_part
select split_part(p_name, ' ', 1) from part;
-- refused: the function regexp_replace
select regexp_replace(n_name, 'A', 'b') from nation;
-- refused: the function repeat
select repeat(r_name, 2) from region;
-- refused: the function strpos
select strpos(n_comment, n_name) from nation;
-- refused: the function md5
select md5(n_name) from nation;
-- refused: the function greatest
select greatest(n_nationkey, n_regionkey) from nation;
-- refused: the function signum
select signum(c_acctbal) from customer;
-- refused: the function round of a value of the type Float64
select round(cast(p_retailprice as double), 1) from part where p_partkey < 10;
-- refused: the function to_char
select to_char(o_orderdate, '%Y') from orders;
-- refused: the function current_date
select count(*) from orders where o_orderdate < current_date;
-- refused: date_part of "epoch"
select extract(epoch from o_orderdate) from orders;
-- refused: the function make_array
select make_array(n_name, n_comment) from nation;

-- Functions of several rows.
-- refused: ORDER BY or IGNORE NULLS in the function array_agg
select array_agg(n_name order by n_name) from nation group by n_regionkey;
-- refused: ORDER BY or IGNORE NULLS in the function string_agg
select string_agg(n_name, ',' order by n_name) from nation;
-- refused: the function median
select median(p_size) from part;
-- refused: the function approx_distinct
select approx_distinct(o_custkey) from orders;
-- refused: the function corr of 2 values
select corr(p_size, p_retailprice) from part;
-- refused: avg(DISTINCT …) of a value of the type Float64
select avg(distinct p_size) from part;
-- refused: the function count of 2 values
select count(distinct n_regionkey, n_name) from nation;
-- refused: FILTER, DISTINCT or IGNORE NULLS over a window
select n_name, count(*) filter (where n_name like 'A%') over (partition by n_regionkey) from nation;
-- refused: a RANGE of distances
select n_name, sum(n_nationkey) over (order by n_nationkey range between 2 preceding and current row) from nation;
-- refused: an order of numbers of floating point within a window
select p_partkey, rank() over (order by sqrt(p_size)) from part;

-- Operators and types.
-- refused: ILIKE
select cast(n_comment as varchar) from nation where n_comment ilike '%HAGGLE%';
-- refused: LIKE of a pattern that is no literal
select n_name from nation where n_comment like '%' || n_name || '%';
-- refused: the operator ~
select n_name from nation where n_name ~ '^A';
-- refused: SIMILAR TO
select n_name from nation where n_name similar to 'A.*';
-- refused: the operator &
select n_nationkey & 3 from nation;
-- refused: a cast from Utf8 to Int64
select cast(c_phone as bigint) from customer;
-- refused: a cast from Utf8 to Date32
select cast(concat('2024-01-0', '1') as date) from region;
-- refused: a cast from Float64 to Utf8
select cast(sqrt(p_size) as varchar) from part;
-- refused: a comparison of Struct
select p_partkey from part where (p_size, p_brand) = (7, 'Brand#11');
-- refused: an interval that is not of whole days, or milliseconds
select o_orderdate + interval '1' hour from orders;
-- refused: a comparison of two numbers of floating point
select count(*) from part where sqrt(p_size) < ln(p_retailprice);
-- refused: GROUP BY of a value of the type Float64
select sqrt(p_size) as s, count(*) from part group by sqrt(p_size);
-- refused: DISTINCT of a value of the type Float64
select distinct cast(p_size as double) from part;
-- refused: IN (SELECT …) of a value of the type Float64
select n_name from nation where sqrt(n_nationkey) in (select sqrt(r_regionkey) from region);

-- Clauses.
-- refused: GROUP BY of a constant
select 'x' as k, count(*) from nation group by 'x';
-- refused: LIMIT or OFFSET of what is computed
select n_name from nation order by n_name limit 1 + 2;
-- refused: DISTINCT ON
select distinct on (n_regionkey) n_regionkey, n_name from nation order by n_regionkey, n_name;
-- refused: FULL JOIN by more than equal columns
select a.r_name, b.r_name as other from region a full join region b on a.r_regionkey < b.r_regionkey;
-- refused: LATERAL
select n_name, t.c from nation, lateral (select count(*) as c from customer where c_nationkey = n_nationkey) as t;
-- refused: UNNEST
select unnest(make_array(1, 2)) from region;
-- refused: WITH RECURSIVE
with recursive r as (select 1 as i union all select i + 1 from r where i < 3) select i from r;
