"""Words that stand on signs, shops, posters, packages and receipts far more often than a dictionary suggests."""

from typing import Final

_ON_SIGNS: Final = """
a about after all also an and any are as at back be been best but by can city come day did do down each even every
few first for free from get give go good great had has have he her here him his home how i if in into is it its just
keep know last let life like live long look love make man many may me men more most much must my near need never new
next no not now of off old on one only or other our out over own part people place please put right same save see
she show side so some start stay still stop take than that the their them then there these they thing this time to
today too two under until up us use very want was way we week well went were what when where which while who why will
with word work world year you your
access alarm alert alley ambulance area arrivals authorized avenue ave bank bar bay beach beware bicycle bike blvd
boulevard bridge building bus business cafe call camera camp caution center centre central church cinema circle clinic
close closed club coach college community corner council court crossing cross customer customers cycle danger dead
deliveries delivery departures dept depot detour do dogs door drive driver drop east electric elevator emergency
employees end engine enter entrance entry escalator estate exit express fall ferry field fire fishing floor foot
footpath forest garage garden gardens gate give green ground hall handicapped hands harbour hard hazard heavy height
help high highway hill hospital hotel hours house information inn inspection island junction kids lake lane left
level library lift limit line litter loading local lock lost lounge low main mall map market max meeting memorial men
metro middle mile mind minutes motor mount museum north notice office open order out palace park parking parade pass
passage passengers path pay pedestrians permit permitted petrol phone pier play plaza police pool port post press
private prohibited property public pull push quay queue quiet railway ramp rd reception recycling red reduce
registration rent required reserved reserve residents rest restricted restroom ring river road room route safety
school sea seat sector security self service shelter shop shops shopping signal silence site slippery slow smoking
south space speed square staff stairs stairway station step strictly street st student subway surgery swimming taxi
terminal theatre through ticket tickets toilet toilets toll tourist tower town tow track traffic trail train
trains tram transit trespassing trucks tunnel turn underground university vacant valley vehicle vehicles video view
village visitor visitors waiting walk warehouse warning washroom waste watch water way west wet wheelchair wing women
wood yard yield zone zoo
accessories art arts auto baby bakery bargain barber bath beauty beds bistro boots books bookshop bookstore boutique
brand brands bread burger butcher cakes cards carpet cars chemist chicken china chinese chocolate clearance clothes
clothing coffee collection company computer computers cookies cosmetics craft cream credit curry dance deli dental
design designer diner discount doctor donuts dress drinks drugs eat electronics equipment events exhibition express
eyes family fashion fast fish fitness flowers food foods football fresh fruit fun furniture gallery games gas gifts
gift glass gold golf gourmet grand grill grocery guitar gym hair hardware health hire holiday ice indian international
italian jeans jewellery jewelers juice kebab kitchen ladies laundry leather lighting lights loans lottery lounge lunch
magazine mail massage meat media medical menu mobile models money mortgage motors movie music nails national natural
news night noodle nutrition off offer oil optical organic original outlet paint paper party pet pets pharmacy phones
photo pizza print printing products pub quality radio records rental repair repairs restaurant rice royal salad sale
sales salon salt sandwich sandwiches seafood shirts shoe shoes soup spa special specials spirits sport sports star
steak stone storage store stores studio style sugar suites sun super supermarket supplies sushi tailor tattoo tea tech
technology telephone tennis thai tire tires tobacco tools toys trade travel tv university vegetables video vintage
watches wedding wholesale wine wines world yoga
account address adult agent amount approved april august balance bill box cash cashier change charge check cheque
code copy cost count coupon credit customer cust date debit december deposit desc description details discount doc due
excl fee february friday gst inc incl includes invoice item items january july june ltd march may member merchant
monday months net nett no november number october order ordered paid payment pcs per phone pin point price purchase
qty quantity rate receipt ref reference refund reg regular returns rm round rounding sat saturday sdn bhd september
server sub subtotal summary sunday table tax tel terminal thank thanks thursday time total trans transaction tuesday
unit vat visa visit void wednesday year
academy action africa air album america american angel animal apple army asia award awards bad band battle bear
beautiful beer big bird birthday black blood blue board body book born boy boys bright british brown california can
capital captain car castle cat champion championship child children christmas class classic clean clear cloud color
comedy concert control cool copyright country cup dark david days dead deal dear death deep digital direct director
discover disney dog dragon dream dreams earth easy edition education energy england english enjoy europe event ever
evil experience explore extra eye face facebook fair fantasy father festival fight film final find fly follow force
forever france freedom friend friends future game general george german germany get girl girls global god golden
google group guide happy head hear heart hello hero history hold hollywood hope hot human image imagine india inside
internet iron iphone italy jack james japan jazz jesus job john join joy july jump king kingdom knight lady land
laugh law leader league learn legend legends lee less light lion little london lord los luck lucky machine made magic
marathon mary master maximum mega michael microsoft mind mission modern moon morning mother mountain movies mr mrs ms
mystery nature network nights ocean official olympic online pacific page paris paul peace perfect performance person
peter phoenix picture pictures pink pirates planet player power premium presents president prince princess pro
professional project queen race rain ready real rebel red return revolution rich ride rise robert rock rocket roll
romance run russia samsung san santa school science scotland season secret september series shadow share ship sign
silver simple sing sky smart smile smith snow social society soft solution solutions song sony soul sound south spain
spirit spring star stars state states steel steve story strong student success summer superman surf sweet system team
texas thomas thunder tiger tom tomorrow tonight top touch tour toyota toy true trust truth twitter uk ultimate ultra
union united usa vegas victoria victory virgin vision visit voice vol vote wales wall wanted war washington wave web
welcome wild will william wind window windows winner winter wolf woman wonder wonderful wow www yes york young youth
youtube zero
"""

SIGN_WORDS: Final[tuple[str, ...]] = tuple(dict.fromkeys(_ON_SIGNS.split()))
